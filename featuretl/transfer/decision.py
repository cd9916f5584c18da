"""The choice of a strategy with its outer score, and `Decision`, which reports the evidence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from featuretl._core.statistics import Gain, gain_of, interval, interval_in_words
from featuretl._core.types import Array
from featuretl._learning.groups import subset
from featuretl.exceptions import InputError
from featuretl.transfer.experiment import Experiment
from featuretl.transfer.search import FEWEST, MANY, MANY_NUMBERS, Search, Trial, too_few
from featuretl.transfer.targets import MultiLabelTargets

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outer:
    """The score of the whole procedure on images that had no part in choosing."""

    score: float = np.nan  # the mean; NaN if no image was held out
    low: float = np.nan  # the limits of its 95% interval
    high: float = np.nan
    images: int = 0  # that were held out
    how: str = ""  # a clause on how they were held out

    def explain(self, score_name: str) -> str:
        """Return the score in words."""
        return (
            f"{score_name} {self.score:.3f} ({interval_in_words(self.low, self.high)}) on "
            f"{self.images:,} images that had no part in choosing"
        )


@dataclass(repr=False, eq=False, frozen=True)
class Decision:
    """The choice of a transfer estimator, and its evidence; it prints as `explain()`."""

    strategy: str  # of the winner
    backbone: str  # of the winner
    outer: Outer
    seconds: float  # of the whole fit
    trials: list[Trial]  # the candidates, with the score of each image
    n_images: int
    per_class: int  # images of the median class; 0 for regression
    folds: str  # the number of inner folds, and why it was reduced
    score_name: str  # "accuracy", "f1_samples" or "r2"
    proportion: bool  # whether the score is a proportion of images
    groups: Array | None  # int (n_images,), copies joined

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per candidate.

        `score` is the mean over the `images` that inner folds held out, `low` to `high` its 95%
        interval; `gain` is the mean difference from the linear probe on the images that both were
        evaluated on, `gain_error` its standard error; `seconds` is the duration, `bytes` the size
        of the embeddings or activations in the store.
        """
        import pandas as pd

        # Gains are relative to the probe on the chosen backbone; without one, to the first candidate.
        probes = [t for t in self.trials if (t.strategy, t.backbone) == ("linear", self.backbone)]
        probe = (probes or self.trials)[0]
        return pd.DataFrame([self._row(trial, probe) for trial in self.trials])

    def explain(self) -> str:
        """Return the decision and its reasons in sentences."""
        won = (self.strategy, self.backbone)
        winner = next(t for t in self.trials if (t.strategy, t.backbone) == won)
        per_class = f", {self.per_class} in the median class" if self.per_class else ""
        data = f"{self.n_images:,} images{per_class}"
        lines = [f"{data}: {winner.name} on {self.backbone} was {verdict(winner, self.trials)}."]
        for trial in self.trials:
            if trial is not winner:
                name = trial.name[0].upper() + trial.name[1:]
                on = "" if trial.backbone == self.backbone else f" on {trial.backbone}"
                lines.append(f"{name}{on}: {verdict(trial, self.trials)}.")
        lines.append(f"Heads were compared on {self.folds}")
        if self.outer.images:
            score = f"{self.outer.explain(self.score_name)}: {self.outer.how}"
            lines.append(f"{score}. Then it was fitted again to all {self.n_images:,}.")
        else:
            lines.append(f"It has no outer score: {self.outer.how}.")
        return "\n".join(lines + self._advice())

    def __repr__(self) -> str:
        return self.explain()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        frame = self._shown()
        frame["verdict"] = [verdict(trial, self.trials, brief=True) for trial in self.trials]
        if frame["backbone"].nunique() == 1:  # the sentences below name it
            frame = frame.drop(columns="backbone")
        table = Table(*map(str, frame.columns))
        for row in frame.itertuples(index=False):
            table.add_row(*map(Text, row))
        return Group(table, Text(self.explain()))

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())
        return self._shown().to_html(index=False) + lines

    def _row(self, trial: Trial, probe: Trial) -> dict[str, Any]:
        scored = ~np.isnan(trial.scores)
        groups = subset(self.groups, trial.rows)
        low, high = np.nan, np.nan
        if scored.any():
            low, high = interval(trial.scores[scored], subset(groups, scored), self.proportion)
        gain, error, _ = gain_of(trial.scores, probe.scores, groups)
        return {
            "strategy": trial.strategy,
            "backbone": trial.backbone,
            "score": trial.score,
            "low": low,
            "high": high,
            "gain": gain,
            "gain_error": error,
            "images": int(scored.sum()),
            "seconds": trial.seconds,
            "bytes": trial.bytes,
            "why": "" if trial.outcome == "skipped" else trial.why,
            "verdict": verdict(trial, self.trials),
        }

    def _shown(self) -> pd.DataFrame:
        """Return the table of candidates as text."""
        frame = self.candidates
        tried = frame["images"] > 0
        score, low, high = (frame[name].map("{:.3f}".format) for name in ("score", "low", "high"))
        between = (" (" + low + " to " + high + ")").where(np.isfinite(frame["low"]), "")
        gain = (100 * frame["gain"]).map("{:+.1f}".format)
        error = (100 * frame["gain_error"]).map("{:.1f}".format)
        columns = {
            self.score_name: score + between,
            "gain, points": (gain + " +- " + error).where(frame["strategy"] != "linear", ""),
            "images": frame["images"].astype(str),
            "seconds": frame["seconds"].map("{:.1f}".format),
            "MB": (frame["bytes"] / 1e6).map("{:.1f}".format),
        }
        shown = {name: column.where(tried, "") for name, column in columns.items()}
        names = frame[["strategy", "backbone"]]
        return names.assign(**shown, why=frame["why"], verdict=frame["verdict"])

    def _advice(self) -> list[str]:
        is_multilabel = self.score_name == MultiLabelTargets.score_name  # without a choice
        if is_multilabel or not too_few(self.per_class, self.n_images):
            return []
        needed = f"{MANY} images per class" if self.per_class else f"{MANY_NUMBERS} images"
        if 0 < self.per_class < FEWEST:
            needed = f"{FEWEST} images per class strategies could be compared, with {MANY}"
        return [f"With {needed} fine-tuning could be tried."]


def choose(experiment: Experiment, strategy: str, test_size: Any) -> tuple[Trial, Decision]:
    """Return the candidate to fit to all images, and the decision with its outer score."""
    experiment.keep_copies_together(experiment.backbones[0])
    fold, how = _outer_folds(experiment, strategy, test_size)
    n_folds, rows = fold.max() + 1, np.arange(experiment.n)
    scores = np.full(experiment.n, np.nan)
    for k in range(n_folds):  # no choice uses the images that it is scored on
        train, test = rows[fold != k], rows[fold == k]
        search = Search(experiment, train, strategy)
        winner = search.run(last=n_folds == 1)
        scores[test] = experiment.evaluate(experiment.fit(winner, train), winner, test)[0]
    if n_folds != 1:  # with one fold, the scored choice is also the final one
        search = Search(experiment, rows, strategy)
        winner = search.run()
    outer, targets = Outer(how=how), experiment.targets
    if n_folds:
        scored = ~np.isnan(scores)
        values, groups = scores[scored], subset(experiment.groups, scored)
        low, high = interval(values, groups, targets.proportion)
        outer = Outer(float(values.mean()), low, high, len(values), how)
    return winner, Decision(
        strategy=winner.strategy,
        backbone=winner.backbone,
        outer=outer,
        seconds=experiment.seconds(),
        trials=search.trials,
        n_images=experiment.n,
        per_class=targets.per_class,
        folds=search.folds,
        score_name=targets.score_name,
        proportion=targets.proportion,
        groups=experiment.groups,
    )


def _outer_folds(experiment: Experiment, strategy: str, test_size: Any) -> tuple[Array, str]:
    """Return the outer fold of each image, -1 for none, and a clause on how images are held out."""
    rows, targets = np.arange(experiment.n), experiment.targets
    if test_size is None:
        return np.full(len(rows), -1), "test_size=None"
    enough = not too_few(targets.per_class, len(rows))
    is_costly = strategy == "fine-tune" or (strategy == "auto" and enough)
    many_folds = test_size == "auto" and not is_costly and len(rows) <= 300
    n_folds = 5 if test_size == "auto" else max(2, round(1 / test_size))
    try:
        fold, _ = experiment.folds(rows, 10 if many_folds else n_folds)
    except InputError as error:
        return np.full(len(rows), -1), str(error).rstrip(".")
    if many_folds:
        return fold, f"the choice was repeated on the rest of each of {fold.max() + 1} folds"
    left = np.count_nonzero(fold != 0)
    return np.where(fold == 0, 0, -1), f"the choice was made on the other {left:,}"


def verdict(trial: Trial, trials: list[Trial], brief: bool = False) -> str:
    """Return the outcome of a trial in words; `brief` omits the evidence."""
    if trial.outcome is None:  # loaded from a file of an earlier version
        return re.split("[,:]", trial.verdict)[0] if brief else trial.verdict
    names = {t.strategy: t.name for t in trials if t.backbone == trial.backbone}
    gained = _gained(trial, names)
    words, evidence = {
        "chosen": ("chosen", f": it {gained}" if gained else ""),
        "compared": ("for comparison", ""),
        "outscored": (f"{trial.better} scored higher", ""),
        "beaten": (f"beaten by {names.get(trial.better)}", ""),
        "rejected": ("rejected", f", as it {gained}"),
        "failed": ("rejected", ": too little time was left for one epoch"),
        "skipped": ("not tried", f": {trial.why}"),
    }[trial.outcome]
    return words if brief else words + evidence


def _gained(trial: Trial, names: dict[str, str]) -> str:
    """Return the gain of a challenger over its rival in words."""
    if trial.gain is None or trial.loss_gain is None:
        return ""
    gain, loss = Gain(*trial.gain), Gain(*trial.loss_gain)  # a model file holds plain tuples
    than = names[trial.rival]
    if not gain.images:
        return f"could not be compared with {than}: no image could be held out"
    text = f"{'gained' if gain.mean >= 0 else 'lost'} {100 * abs(gain.mean):.1f} +- {100 * gain.error:.1f} points"
    if loss.images:
        text += f" (log-loss {-loss.mean:+.3f} +- {loss.error:.3f})"
    text += f" against {than} on {gain.images:,} held-out images"
    if trial.outcome == "rejected" and not gain.error:
        text += ": both are right about the same images"
    elif trial.outcome == "rejected" and gain.mean > 0:
        text += ", less than one standard error"
    return text
