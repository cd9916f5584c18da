"""Search: evaluate candidates on the same inner folds, and compare them in pairs."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from featuretl._core.statistics import Gain, gain_of
from featuretl._core.types import Array
from featuretl._learning.groups import subset
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.targets import MOST_FOR_SVM

# Images per class: with fewer than the first, held-out images are too few to compare strategies;
# from the second on, more than a linear head may pay (benchmarks/README.md, "chooser.py").
FEWEST, MANY = 5, 20
MANY_NUMBERS = 200  # the same limit for regression: all images
_FEWEST_ERRORS = 3  # with fewer wrong predictions, no gain could be measured
_NEAREST_MEAN_TO = 50

# The cost of fine-tuning in passes over the images (the search on four fifths of them, and twelve
# epochs each for the outer score and the last fit), and the least for which it is tried.
_PASSES, _LEAST_PASSES = 40.0, 10.0

Outcome = Literal["chosen", "compared", "outscored", "beaten", "rejected", "failed", "skipped"]


@dataclass(eq=False)
class Trial:
    """One candidate, and its evaluation on held-out images."""

    strategy: str
    backbone: str
    why: str  # why it was tried or skipped
    # The images of the choice (n,); their scores and log-losses (n,), NaN for images not evaluated.
    rows: Array
    scores: Array
    losses: Array
    # "outscored": the probe of another backbone is better; "beaten": by a challenger; "rejected":
    # as a challenger; "failed": out of time. Files of earlier versions have None, and `verdict`.
    outcome: Outcome | None = None
    # The strategy that it challenged, and its gains in score and log-loss.
    rival: str = ""
    gain: Gain | None = None
    loss_gain: Gain | None = None
    better: str = ""  # the strategy that beat it, or the backbone that scored higher
    verdict: str = ""
    seconds: float = 0.0
    bytes: int = 0  # the size of its embeddings or activations in the store
    # The `learning_rate` and `n_blocks` that the search of fine-tuning chose.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean score of the evaluated images; NaN without any."""
        scored = self.scores[~np.isnan(self.scores)]
        return float(scored.mean()) if len(scored) else np.nan

    @property
    def name(self) -> str:
        """The name of the candidate in sentences."""
        names = {"linear": "the linear probe", "nearest-mean": "nearest mean", "svm": "the SVM"}
        if not self.settings:
            return names.get(self.strategy, "fine-tuning")
        blocks, rate = self.settings["n_blocks"], self.settings["learning_rate"]
        return f"fine-tuning {blocks} block{'s'[: blocks != 1]} at rate {rate:g}"


class Search:
    """The choice among candidates on inner folds of the images `rows`; `trials` lists them all."""

    def __init__(self, experiment: Experiment, rows: Array, strategy: str) -> None:
        self._experiment, self._rows, self._strategy = experiment, rows, strategy
        self._groups = subset(experiment.groups, rows)
        self._too_few = too_few(experiment.targets.per_class, experiment.n)
        self.trials: list[Trial] = []
        try:
            self._fold, self.folds = experiment.folds(rows, experiment.cv)
        except InputError as error:
            self._fold, self.folds = np.full(len(rows), -1), str(error)

    def run(self, *, last: bool = True) -> Trial:
        """Evaluate the candidates that the images allow; return the winner.

        Unless this is the `last` search, whose trials are shown, a sole candidate wins unevaluated.
        """
        sole = len(self._experiment.backbones) == 1 and self._strategy not in ("auto", "fine-tune")
        if sole and not last:
            return self._trial(self._strategy, self._experiment.backbones[0], "requested")
        with warnings.catch_warnings():
            # Every head would warn in every fold about its number of inner folds.
            warnings.simplefilter("ignore", FeatureTLWarning)
            auto = self._strategy == "auto"
            first = "linear" if auto or self._strategy == "fine-tune" else self._strategy
            why = "the fallback" if first == "linear" and auto else "requested"
            backbones = self._experiment.backbones
            leader = self._best_backbone([self._head(first, name, why) for name in backbones])
            if auto:
                leader = self._fine_tune(self._svm(self._nearest_mean(leader)))
            elif self._strategy == "fine-tune":
                leader.outcome = "compared"
                leader = self._fine_tuned(leader.backbone, "requested")
        leader.outcome = "chosen"
        return leader

    def _best_backbone(self, trials: list[Trial]) -> Trial:
        best = max(trials, key=lambda trial: np.nan_to_num(trial.score, nan=-np.inf))
        for trial in trials:
            if trial is not best:
                trial.outcome, trial.better = "outscored", best.backbone
        return best

    def _nearest_mean(self, probe: Trial) -> Trial:
        per_class = self._experiment.targets.per_class
        if not 0 < per_class <= _NEAREST_MEAN_TO:
            return probe
        if per_class < FEWEST:
            why = f"with {per_class} images per class, strategies cannot be compared"
            return self._skip("nearest-mean", probe, why)
        why = f"{per_class} images per class: class means may suffice"
        return self._better(self._head("nearest-mean", probe.backbone, why), than=probe)

    def _svm(self, leader: Trial) -> Trial:
        n, why = len(self._rows), self._too_few
        if not why and n > MOST_FOR_SVM:
            why = f"{n:,} images are more than {MOST_FOR_SVM:,}, and it would be slow to fit"
        if not why and self._experiment.seconds_left() < self._experiment.budget / 2:
            why = "half of the time budget is spent"
        if why:
            return self._skip("svm", leader, why)
        svm = self._head("svm", leader.backbone, "enough images for curved boundaries")
        return self._better(svm, than=leader)

    def _fine_tune(self, leader: Trial) -> Trial:
        why = self._too_few or self._too_good(leader) or self._too_long(leader.backbone)
        if why:
            return self._skip("fine-tune", leader, why)
        tuned = self._fine_tuned(leader.backbone, f"{leader.name} makes errors, and images suffice")
        return self._better(tuned, than=leader) if tuned.settings else leader

    def _better(self, challenger: Trial, than: Trial) -> Trial:
        """Return the challenger if its gain is clear, else the candidate that it challenges."""
        gain = gain_of(challenger.scores, than.scores, self._groups)
        loss = gain_of(-challenger.losses, -than.losses, self._groups)
        challenger.rival, challenger.gain, challenger.loss_gain = than.strategy, gain, loss
        # The log-loss reveals smaller gains; with the same predictions, only confidence differs.
        if gain.is_clear or (gain.mean >= 0 and gain.error > 0 and loss.is_clear):
            than.outcome, than.better = "beaten", challenger.strategy
            return challenger
        challenger.outcome = "rejected"
        return than

    def _head(self, strategy: str, backbone: str, why: str) -> Trial:
        """Evaluate a head on all inner folds."""
        began = time.monotonic()
        experiment, rows = self._experiment, self._rows
        trial = self._trial(strategy, backbone, why)
        trial.bytes = experiment.embeddings(backbone).nbytes
        for k in range(self._fold.max() + 1):
            train, held_out = rows[self._fold != k], np.flatnonzero(self._fold == k)
            head = experiment.head(strategy, train, backbone)
            scores, losses = experiment.evaluate(head, trial, rows[held_out])
            trial.scores[held_out], trial.losses[held_out] = scores, losses
        trial.seconds = time.monotonic() - began
        return trial

    def _fine_tuned(self, backbone: str, why: str) -> Trial:
        """Evaluate fine-tuning on the first inner fold."""
        began = time.monotonic()
        experiment, rows = self._experiment, self._rows
        trial = self._trial("fine-tune", backbone, why)
        held_out = np.flatnonzero(self._fold == 0) if self._fold.max() >= 0 else None
        images, y, groups = experiment.subset(rows)
        model = experiment.fine_tune(backbone, 0.3 * experiment.seconds_left())
        found = model.search(images, y, groups=groups, held_out=held_out)
        if found.interrupted:
            raise KeyboardInterrupt
        trial.seconds, trial.bytes = time.monotonic() - began, found.cache_trunk.bytes
        if found.learning_rate is None:
            trial.outcome = "failed"
            return trial
        trial.settings = {"learning_rate": found.learning_rate, "n_blocks": found.n_blocks}
        scores, losses = experiment.targets.evaluation_of(found, rows)
        trial.scores[found.held_out], trial.losses[found.held_out] = scores, losses
        return trial

    def _trial(self, strategy: str, backbone: str, why: str) -> Trial:
        """Add a candidate without scores."""
        scores, losses = np.full((2, len(self._rows)), np.nan)
        trial = Trial(strategy, backbone, why, self._rows, scores, losses)
        self.trials.append(trial)
        return trial

    def _skip(self, strategy: str, leader: Trial, why: str) -> Trial:
        self._trial(strategy, leader.backbone, why).outcome = "skipped"
        return leader

    def _too_good(self, leader: Trial) -> str:
        errors = np.nansum(1 - leader.scores)
        if not self._experiment.targets.proportion or errors >= _FEWEST_ERRORS:
            return ""
        return (
            f"{leader.name} makes {errors:.0f} errors on {len(self._rows)} images: nothing to gain"
        )

    def _too_long(self, backbone: str) -> str:
        experiment = self._experiment
        if np.isinf(experiment.budget):
            return ""
        per_pass = experiment.n * experiment.seconds_per_image(backbone)
        left = experiment.seconds_left()
        if left >= _LEAST_PASSES * per_pass:
            return ""
        return (
            f"it would take about {_PASSES * per_pass:,.0f} s, and only {max(left, 0):,.0f} s of "
            "the time budget are left"
        )


def too_few(per_class: int, n: int) -> str:
    """Return why n images, `per_class` in the median class (0: regression), are too few, or ""."""
    if per_class >= MANY or (not per_class and n >= MANY_NUMBERS):
        return ""
    if per_class:
        return f"{per_class} images per class, and it needs about {MANY}"
    return f"{n} images, and it needs about {MANY_NUMBERS}"
