"""Search: candidates tried on the same inner folds of some images, and compared in pairs."""

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

# Images per class. Below the first, held-out images say nothing, and the probe is the better guess
# (benchmarks/README.md, "chooser.py"); from the second on, more than a linear head may be worth its price.
FEWEST, MANY = 5, 20
# For regression, which has no classes: images in all.
MANY_NUMBERS = 200
# With fewer wrong predictions, there is nothing to gain that could be seen.
_FEWEST_ERRORS = 3
_NEAREST_MEAN_TO = 50

# The fraction of the time left that a search for rate and depth may take.
_SEARCH = 0.3
# What a fine-tuning costs, in passes over its images: the search on four fifths of them, 12 epochs
# for the outer score, 12 for the last fit; and at the least.
_PASSES, _LEAST_PASSES = 40.0, 10.0

Outcome = Literal["chosen", "compared", "outscored", "beaten", "rejected", "failed", "skipped"]


@dataclass(eq=False)
class Trial:
    """One candidate, tried or not."""

    strategy: str
    backbone: str
    # Why it was tried, or why it was skipped.
    why: str
    # The images of the choice; a score and a log-loss of each that judged it, NaN of the others.
    rows: Array
    scores: Array
    losses: Array
    # "compared": tried for comparison only; "outscored": another backbone has the better probe;
    # "beaten" by a challenger; "rejected" as a challenger; "failed" for want of time; "skipped":
    # not tried. None in files of earlier versions, which have `verdict`, a sentence, instead.
    outcome: Outcome | None = None
    # The strategy that it challenged, and by how much it was better in score and log-loss.
    rival: str = ""
    gain: Gain | None = None
    loss_gain: Gain | None = None
    # The strategy that beat it, or the backbone that scored higher.
    better: str = ""
    verdict: str = ""
    seconds: float = 0.0
    # Size of its embeddings or activations in the store.
    bytes: int = 0
    # `learning_rate` and `n_blocks` that fine-tuning found.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean score of the images that it was judged by; NaN for none."""
        judged = self.scores[~np.isnan(self.scores)]
        return float(judged.mean()) if len(judged) else np.nan

    @property
    def name(self) -> str:
        """The candidate in words."""
        names = {"linear": "the linear probe", "nearest-mean": "nearest mean", "svm": "the SVM"}
        if self.strategy != "fine-tune":
            return names[self.strategy]
        if not self.settings:
            return "fine-tuning"
        blocks, rate = self.settings["n_blocks"], self.settings["learning_rate"]
        return f"fine-tuning {blocks} block{'s'[: blocks != 1]} at rate {rate:g}"


class Search:
    """The choice among candidates, by inner folds, that uses the images `rows` of an experiment.

    Attributes
    ----------
    trials : list of Trial
        In the order of trying.
    folds : str
        The number of inner folds, and why there are no more.
    """

    def __init__(
        self, experiment: Experiment, rows: Array, backbones: list[str], strategy: str, cv: Any
    ) -> None:
        self._experiment, self._rows = experiment, rows
        self._backbones, self._strategy = backbones, strategy
        self._groups = subset(experiment.groups, rows)
        self.trials: list[Trial] = []
        try:
            self._fold, self.folds = experiment.folds(rows, cv)
        except InputError as error:
            self._fold, self.folds = np.full(len(rows), -1), str(error)

    def run(self) -> Trial:
        """Try what the images allow; return the winner."""
        with warnings.catch_warnings():
            # Every head warns in every fold how many folds of its own it makes.
            warnings.simplefilter("ignore", FeatureTLWarning)
            auto = self._strategy == "auto"
            first = "linear" if auto or self._strategy == "fine-tune" else self._strategy
            why = "the fallback" if first == "linear" and auto else "as asked"
            leader = self._best_backbone([self._head(first, b, why) for b in self._backbones])
            if auto:
                leader = self._nearest_mean(leader)
                leader = self._svm(leader)
                leader = self._fine_tune(leader)
            elif self._strategy == "fine-tune":
                leader.outcome = "compared"
                leader = self._fine_tuned(leader.backbone, "as asked")
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
            why = f"with {per_class} images per class a difference says nothing"
            return self._skip("nearest-mean", probe, why)
        why = f"{per_class} images per class: means of classes may do as well"
        return self._better(self._head("nearest-mean", probe.backbone, why), than=probe)

    def _svm(self, leader: Trial) -> Trial:
        n, why = len(self._rows), self._too_few()
        if not why and n > MOST_FOR_SVM:
            why = f"{n:,} images are more than {MOST_FOR_SVM:,}, where it is slow to fit"
        if not why and self._experiment.seconds_left() < self._experiment.budget / 2:
            why = "half of the time budget is spent"
        if why:
            return self._skip("svm", leader, why)
        svm = self._head("svm", leader.backbone, "enough images for curved boundaries")
        return self._better(svm, than=leader)

    def _fine_tune(self, leader: Trial) -> Trial:
        why = self._too_few() or self._too_good(leader) or self._too_long(leader.backbone)
        if why:
            return self._skip("fine-tune", leader, why)
        tuned = self._fine_tuned(leader.backbone, f"{leader.name} errs, and images suffice")
        if not tuned.settings:
            return leader
        return self._better(tuned, than=leader)

    def _better(self, challenger: Trial, than: Trial) -> Trial:
        """Return the challenger if its gain is clear, else the one that it challenges.

        Log-losses show smaller gains than scores do; they count where the score is no worse, and
        not where both are right about the same images: then it is confidence that differs.
        """
        gain = gain_of(challenger.scores, than.scores, self._groups)
        loss = gain_of(-challenger.losses, -than.losses, self._groups)
        challenger.rival, challenger.gain, challenger.loss_gain = than.strategy, gain, loss
        if gain.is_clear or (gain.mean >= 0 and gain.error > 0 and loss.is_clear):
            than.outcome, than.better = "beaten", challenger.strategy
            return challenger
        challenger.outcome = "rejected"
        return than

    def _head(self, strategy: str, backbone: str, why: str) -> Trial:
        """Try a head on all inner folds."""
        began = time.monotonic()
        experiment, rows = self._experiment, self._rows
        trial = self._trial(strategy, backbone, why)
        trial.bytes = experiment.embeddings(backbone).nbytes
        for k in range(self._fold.max() + 1):
            train, held_out = rows[self._fold != k], np.flatnonzero(self._fold == k)
            head = experiment.head(strategy, train, backbone)
            judged = experiment.judge(head, strategy, rows[held_out], backbone)
            trial.scores[held_out], trial.losses[held_out] = judged
        trial.seconds = time.monotonic() - began
        return trial

    def _fine_tuned(self, backbone: str, why: str) -> Trial:
        """Try fine-tuning on the first inner fold."""
        began = time.monotonic()
        experiment, rows = self._experiment, self._rows
        trial = self._trial("fine-tune", backbone, why)
        held_out = np.flatnonzero(self._fold == 0) if self._fold.max() >= 0 else None
        images, y, groups = experiment.subset(rows)
        model = experiment.fine_tune(backbone, _SEARCH * experiment.seconds_left())
        found = model.search(images, y, groups=groups, held_out=held_out)
        if found.interrupted:
            raise KeyboardInterrupt
        trial.seconds, trial.bytes = time.monotonic() - began, found.cache_trunk.bytes
        if found.learning_rate is None:
            trial.outcome = "failed"
            return trial
        trial.settings = {"learning_rate": found.learning_rate, "n_blocks": found.n_blocks}
        judged = experiment.targets.judged_by(found, rows)
        trial.scores[found.held_out], trial.losses[found.held_out] = judged
        return trial

    def _trial(self, strategy: str, backbone: str, why: str) -> Trial:
        """Return a new candidate without scores."""
        scores, losses = np.full((2, len(self._rows)), np.nan)
        trial = Trial(strategy, backbone, why, self._rows, scores, losses)
        self.trials.append(trial)
        return trial

    def _skip(self, strategy: str, leader: Trial, why: str) -> Trial:
        self._trial(strategy, leader.backbone, why).outcome = "skipped"
        return leader

    def _too_few(self) -> str:
        per_class, n = self._experiment.targets.per_class, self._experiment.n
        if per_class and per_class < MANY:
            return f"{per_class} images per class, and it pays from about {MANY} on"
        if not per_class and n < MANY_NUMBERS:
            return f"{n} images, and it pays from about {MANY_NUMBERS} on"
        return ""

    def _too_good(self, leader: Trial) -> str:
        if self._experiment.targets.proportion:
            errors = int(np.nansum(1 - leader.scores))
            if errors < _FEWEST_ERRORS:
                return f"{leader.name} errs on {errors} of {len(self._rows)}: nothing to gain"
        return ""

    def _too_long(self, backbone: str) -> str:
        experiment = self._experiment
        if np.isinf(experiment.budget):
            return ""
        per_pass = experiment.n * experiment.seconds_per_image(backbone)
        left = experiment.seconds_left()
        if left < _LEAST_PASSES * per_pass:
            return (
                f"it would take about {_PASSES * per_pass:,.0f} s, and {max(left, 0):,.0f} s of "
                "the time budget are left"
            )
        return ""
