"""Decision: what was tried, what won, by how much, and why: as a table and in sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from featuretl._core.statistics import Gain, gain_of, interval, interval_in_words
from featuretl._core.types import Array
from featuretl._learning.groups import subset
from featuretl.transfer.search import FEWEST, MANY, MANY_NUMBERS, Trial
from featuretl.transfer.targets import MultiLabelTargets

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outer:
    """The score of the whole procedure on images that had no part in choosing.

    Attributes
    ----------
    score, low, high : float
        The mean and its 95% interval; NaN where nothing was held out.
    images : int
        The number of images that it was measured on.
    how : str
        How these images were held out, in words.
    """

    score: float = np.nan
    low: float = np.nan
    high: float = np.nan
    images: int = 0
    how: str = ""

    @classmethod
    def of(cls, scores: Array, groups: Array | None, proportion: bool, how: str) -> Outer:
        """Return the outer score of `scores` (k,)."""
        low, high = interval(scores, groups, proportion)
        return cls(float(scores.mean()), low, high, len(scores), how)

    def explain(self, score_name: str, no_part: str) -> str:
        """Return the score in words; `no_part` ends "images that had no part in"."""
        return (
            f"{score_name} {self.score:.3f} ({interval_in_words(self.low, self.high)}) on "
            f"{self.images:,} images that had no part in {no_part}"
        )


@dataclass(eq=False, frozen=True)
class Decision:
    """The choice of `TransferClassifier` or `TransferRegressor`, and its evidence.

    It prints as `explain()`; in a notebook, or printed by rich, with the table as well.

    Attributes
    ----------
    strategy, backbone : str
        The strategy and the backbone of the winner.
    outer : Outer
        `score`, `low`, `high`, `images`, `how`: measured on images that had no part in choosing.
    seconds : float
        Duration of the whole fit.
    trials : list of Trial
        The candidates, with the score of each image.
    n_images, per_class : int
        Images in all, and in the median class; 0 for regression.
    folds : str
        The number of inner folds, and why there were no more.
    score_name : str
        "accuracy", "f1_samples" or "r2".
    proportion : bool
        Whether the score is a proportion of images.
    groups : ndarray of shape (n_images,), int, or None
        The groups of the images, copies joined.
    """

    strategy: str
    backbone: str
    outer: Outer
    seconds: float
    trials: list[Trial]
    n_images: int
    per_class: int
    folds: str
    score_name: str
    proportion: bool
    groups: Array | None

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per candidate.

        `score`, with its 95% interval `low` to `high`, is the mean over the `images` that were held
        out on inner folds; `gain` is the mean difference from the linear probe on the images that
        both were judged by, `gain_error` its standard error; `seconds` is how long the trial took,
        `bytes` the size of its embeddings or activations in the store.
        """
        import pandas as pd

        return pd.DataFrame([self._row(trial) for trial in self.trials])

    def explain(self) -> str:
        """Return what was decided and why, in plain sentences."""
        winner = self._winner
        data = f"{self.n_images:,} images"
        if self.per_class:
            data += f", {self.per_class} in the median class"
        lines = [f"{data}: {winner.name} on {self.backbone} was {verdict(winner, self.trials)}."]
        for trial in self.trials:
            if trial is not winner:
                name = trial.name[0].upper() + trial.name[1:]
                if trial.backbone != self.backbone:
                    name += f" on {trial.backbone}"
                lines.append(f"{name}: {verdict(trial, self.trials)}.")
        lines.append(f"Heads were compared on {self.folds}")
        return "\n".join([*lines, self._outer_line(), *self._needs()])

    def __str__(self) -> str:
        return self.explain()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        frame = self._shown()
        frame["verdict"] = [verdict(trial, self.trials, brief=True) for trial in self.trials]
        if frame["backbone"].nunique() == 1:  # the sentences below have it
            frame = frame.drop(columns="backbone")
        table = Table(*map(str, frame.columns))
        for row in frame.itertuples(index=False):
            table.add_row(*map(Text, row))
        return Group(table, Text(self.explain()))

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())
        return self._shown().to_html(index=False) + lines

    @property
    def _winner(self) -> Trial:
        chosen = (self.strategy, self.backbone)
        return next(t for t in self.trials if (t.strategy, t.backbone) == chosen)

    def _row(self, trial: Trial) -> dict[str, Any]:
        judged = ~np.isnan(trial.scores)
        groups = subset(self.groups, trial.rows)
        low, high = np.nan, np.nan
        if judged.any():
            low, high = interval(trial.scores[judged], subset(groups, judged), self.proportion)
        gain, error, _ = gain_of(trial.scores, self._probe.scores, groups)
        return {
            "strategy": trial.strategy,
            "backbone": trial.backbone,
            "score": trial.score,
            "low": low,
            "high": high,
            "gain": gain,
            "gain_error": error,
            "images": int(judged.sum()),
            "seconds": trial.seconds,
            "bytes": trial.bytes,
            "why": "" if trial.outcome == "skipped" else trial.why,
            "verdict": verdict(trial, self.trials),
        }

    @property
    def _probe(self) -> Trial:
        """The linear probe on the chosen backbone; the first candidate where there is none."""
        probes = [t for t in self.trials if (t.strategy, t.backbone) == ("linear", self.backbone)]
        return (probes or self.trials)[0]

    def _shown(self) -> pd.DataFrame:
        """Return the candidates as text."""
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

    def _outer_line(self) -> str:
        if not self.outer.images:
            return f"It has no outer score: {self.outer.how}."
        score = self.outer.explain(self.score_name, "choosing")
        return f"{score}: {self.outer.how}. Then it was fitted again to all {self.n_images:,}."

    def _needs(self) -> list[str]:
        if self.score_name == MultiLabelTargets.score_name:  # for which there is one strategy
            return []
        if self.per_class and self.per_class < FEWEST:
            return [
                f"With {FEWEST} images per class strategies could be compared, with {MANY} "
                "fine-tuning could be tried."
            ]
        needed = f"{MANY} images per class" if self.per_class else f"{MANY_NUMBERS} images"
        if self.per_class >= MANY or (not self.per_class and self.n_images >= MANY_NUMBERS):
            return []
        return [f"With {needed} fine-tuning could be tried."]


def verdict(trial: Trial, trials: list[Trial], brief: bool = False) -> str:
    """Return what became of one of some trials, in words; `brief` leaves out the evidence."""
    if trial.outcome is None:  # read from a file of an earlier version
        return re.split("[,:]", trial.verdict)[0] if brief else trial.verdict
    names = {t.strategy: t.name for t in trials if t.backbone == trial.backbone}
    gained = _gained(trial, names)
    words, evidence = {
        "chosen": ("chosen", f": it {gained}" if gained else ""),
        "compared": ("for comparison", ""),
        "outscored": (f"{trial.better} scored higher", ""),
        "beaten": (f"beaten by {names.get(trial.better)}", ""),
        "rejected": ("rejected", f", as it {gained}"),
        "failed": ("rejected", ": the time left did not suffice for a first epoch"),
        "skipped": ("not tried", f": {trial.why}"),
    }[trial.outcome]
    return words if brief else words + evidence


def _gained(trial: Trial, names: dict[str, str]) -> str:
    """Return how a challenger compared with its rival, in words."""
    if trial.gain is None or trial.loss_gain is None:
        return ""
    gain, loss = Gain(*trial.gain), Gain(*trial.loss_gain)  # a model file holds plain tuples
    than = names[trial.rival]
    if not gain.images:
        return f"could not be compared with {than}: nothing could be held out"
    text = f"{'gained' if gain.mean >= 0 else 'lost'} {100 * abs(gain.mean):.1f} +- {100 * gain.error:.1f} points"
    if loss.images:
        text += f" (log-loss {-loss.mean:+.3f} +- {loss.error:.3f})"
    text += f" against {than} on {gain.images:,} held-out images"
    if trial.outcome == "rejected" and not gain.error:
        text += ": they are right about the same ones"
    elif trial.outcome == "rejected" and gain.mean > 0:
        text += ", less than one standard error"
    return text
