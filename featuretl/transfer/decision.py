"""What was tried, what won, by how much, and why: as a table and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from featuretl._core.statistics import gain_of, interval, interval_in_words
from featuretl._core.types import Array
from featuretl.transfer.search import FEWEST, MANY, MANY_NUMBERS, Trial
from featuretl.transfer.tasks import Tags

if TYPE_CHECKING:
    import pandas as pd

    from featuretl.transfer.problem import Problem
    from featuretl.transfer.search import Search


@dataclass(frozen=True)
class Outer:
    """The score of the whole procedure on images that had no part in choosing.

    Attributes
    ----------
    score, low, high : float
        The mean and its 95% interval; NaN where nothing was held out.
    images : int
        Images that it was measured on.
    how : str
        How they were held out, in words.
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


@dataclass(eq=False, frozen=True)
class Decision:
    """What `TransferClassifier` or `TransferRegressor` decided, and on what evidence.

    Printed it is `explain()`; in a notebook, or printed by rich, the table as well.

    Attributes
    ----------
    strategy, backbone : str
        What was chosen.
    outer : Outer
        `score`, `low`, `high`, `images`, `how`: measured on images that had no part in choosing.
    seconds : float
        Of the whole fit.
    trials : list of Trial
        The candidates, with the score of each image.
    n_images, per_class : int
        Images in all, and of the median class; 0 for numbers.
    folds : str
        How many inner folds there were, and why no more.
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

        `score`, with its 95% interval `low` to `high`, is the mean over the `images` that it was
        judged by, held out on inner folds; `gain` is that over the linear probe on the images that
        both were judged by, `gain_error` its standard error; `seconds` it took to try; `bytes` its
        embeddings or activations take in the store.
        """
        import pandas as pd

        return pd.DataFrame([self._row(trial) for trial in self.trials])

    def explain(self) -> str:
        """Return what was decided and why, in plain sentences."""
        winner = self._winner
        data = f"{self.n_images:,} images"
        if self.per_class:
            data += f", {self.per_class} in the median class"
        lines = [f"{data}: {winner.name} on {self.backbone} was {winner.verdict}."]
        for trial in self.trials:
            if trial is not winner:
                name = trial.name[0].upper() + trial.name[1:]
                if trial.backbone != self.backbone:
                    name += f" on {trial.backbone}"
                lines.append(f"{name}: {trial.verdict}.")
        lines.append(f"Heads were compared on {self.folds}")
        return "\n".join([*lines, *self._outer_lines(), *self._needs()])

    def __str__(self) -> str:
        return self.explain()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        frame = self._shown()
        if frame["backbone"].nunique() == 1:
            frame = frame.drop(columns="backbone")
        # The sentences below have the backbone, and the whole of each verdict.
        frame["verdict"] = frame["verdict"].str.extract("^([^,:]*)", expand=False)
        table = Table(*map(str, frame.columns))
        for row in frame.itertuples(index=False):
            table.add_row(*map(Text, row))
        return Group(table, Text(self.explain()))

    def _repr_html_(self) -> str:
        lines = "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())
        return self._shown().to_html(index=False) + lines

    @property
    def _winner(self) -> Trial:
        return next(trial for trial in self.trials if trial.verdict.startswith("chosen"))

    def _row(self, trial: Trial) -> dict[str, Any]:
        judged = ~np.isnan(trial.scores)
        groups = None if self.groups is None else self.groups[trial.rows]
        low, high = np.nan, np.nan
        if judged.any():
            of_judged = None if groups is None else groups[judged]
            low, high = interval(trial.scores[judged], of_judged, self.proportion)
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
            "why": trial.why,
            "verdict": trial.verdict,
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
        shown = frame[["strategy", "backbone"]].copy()
        scores = frame["score"].map("{:.3f}".format)
        between = (
            " ("
            + frame["low"].map("{:.3f}".format)
            + " to "
            + frame["high"].map("{:.3f}".format)
            + ")"
        )
        shown[self.score_name] = (scores + between.where(np.isfinite(frame["low"]), "")).where(
            tried, ""
        )
        shown["gain, points"] = [
            f"{100 * row.gain:+.1f} +- {100 * row.gain_error:.1f}"
            if row.images and row.strategy != "linear"
            else ""
            for row in frame.itertuples()
        ]
        shown["images"] = frame["images"].astype(str).where(tried, "")
        shown["seconds"] = frame["seconds"].map("{:.1f}".format).where(tried, "")
        shown["MB"] = (frame["bytes"] / 1e6).map("{:.1f}".format).where(tried, "")
        return shown.assign(why=frame["why"], verdict=frame["verdict"])

    def _outer_lines(self) -> list[str]:
        outer = self.outer
        if not outer.images:
            return [f"It has no outer score: {outer.how}."]
        return [
            f"{self.score_name} {outer.score:.3f} ({interval_in_words(outer.low, outer.high)}) on {outer.images:,} images that had no part in choosing: "
            f"{outer.how}. Then it was fitted again to all {self.n_images:,}."
        ]

    def _needs(self) -> list[str]:
        if self.score_name == Tags.score_name:  # for which there is one strategy
            return []
        if self.per_class and self.per_class < FEWEST:
            return [
                f"With {FEWEST} images per class strategies could be compared, with {MANY} "
                "fine-tuning could be tried."
            ]
        if self.per_class and self.per_class < MANY:
            return [f"With {MANY} images per class fine-tuning could be tried."]
        if not self.per_class and self.n_images < MANY_NUMBERS:
            return [f"With {MANY_NUMBERS} images fine-tuning could be tried."]
        return []


def decision_of(
    problem: Problem, search: Search, winner: Trial, outer: Outer, seconds: float
) -> Decision:
    """Return what a search decided about a problem."""
    return Decision(
        strategy=winner.strategy,
        backbone=winner.backbone,
        outer=outer,
        seconds=seconds,
        trials=search.trials,
        n_images=problem.n,
        per_class=problem.task.per_class,
        folds=search.folds,
        score_name=problem.task.score_name,
        proportion=problem.task.proportion,
        groups=problem.groups,
    )
