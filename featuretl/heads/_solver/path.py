"""The choice of C: a warm-started path over all folds together, coarse and then fine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl._core.parameters import (
    check_bool,
    check_number,
    check_option,
    is_number,
    is_word,
    parameter_error,
)
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds
from featuretl._learning.rows import SCALINGS
from featuretl.heads._solver.problem import LinearProblem

_COARSE = tuple(10.0**exponent for exponent in range(-5, 2))
_FINE = (-2 / 3, -1 / 3, 1 / 3, 2 / 3)
_LOOSER = 10  # scores need less precision than the final fit
_PATIENCE = 2

Scores = Callable[[Array], dict[str, Array]]


def search(
    problem: LinearProblem, Cs: Any, scores: Scores, criterion: str, tol: float, max_iter: int
) -> Bunch:
    """Fit all folds for each C in `Cs` and return a Bunch that describes the path.

    `LinearProbeClassifier` describes "auto". `scores` maps held-out logits (n, columns) to named
    scores (n_folds,), where larger is better. The mean of `criterion` over folds decides, then the
    other scores, then the smaller C. The Bunch has `C` (m,), ascending; an array (m, n_folds) for
    each score; and of the `best` C its held-out `logits` and mean scores, `rank`.
    """
    path = Path(scores, criterion)
    solutions: dict[float, Array] = {}

    def walk(Cs: Any, patience: int | None = None) -> None:
        """Try ascending `Cs`; stop after `patience` values in a row that fall short of the best."""
        short = 0
        for C in Cs:
            below = [c for c in solutions if c < C]
            start = solutions[max(below)] if below else problem.start()
            solutions[C] = problem.solve(C, start, _LOOSER * tol, max_iter).x
            path.add(C, problem.held_out_logits(solutions[C]))
            for c in sorted(c for c in solutions if c < path.best)[:-1]:
                del solutions[c]  # no later C starts from it
            short = short + 1 if path.rank(C)[0] < path.rank(path.best)[0] else 0
            if short == patience:
                break

    if isinstance(Cs, str):
        walk(_COARSE, _PATIENCE)
        peak = path.best
        walk([peak * 10**exponent for exponent in _FINE if exponent < 0])
        walk([peak * 10**exponent for exponent in _FINE if exponent > 0])
    else:
        walk(sorted(map(float, Cs)))
    return path.result()


class Path:
    """Scores by C, and the best C so far with its held-out logits; see `search`."""

    def __init__(self, scores: Scores, criterion: str) -> None:
        self._scores, self._criterion = scores, criterion
        self._scored: dict[float, dict[str, Array]] = {}
        self.best = np.nan
        self._logits: Array | None = None

    def add(self, C: float, logits: Array) -> None:
        """Score the held-out logits (n, columns) of `C`."""
        self._scored[C] = self._scores(logits)
        if np.isnan(self.best) or (self.rank(C), -C) > (self.rank(self.best), -self.best):
            self.best, self._logits = C, logits

    def rank(self, C: float) -> tuple[float, ...]:
        """Return the fold means of the scores at `C`, criterion first, rounded to reveal ties."""
        means = {name: round(float(score.mean()), 12) for name, score in self._scored[C].items()}
        return means.pop(self._criterion), *means.values()

    def result(self) -> Bunch:
        """Return the Bunch that `search` returns."""
        Cs = sorted(self._scored)
        names = self._scored[Cs[0]]
        table = {name: np.array([self._scored[C][name] for C in Cs]) for name in names}
        chosen = {"best": self.best, "logits": self._logits, "rank": self.rank(self.best)}
        return Bunch(C=np.array(Cs), **table, **chosen)


def fold_means(values: Array, fold: Array, weight: Array) -> Array:
    """Return the weighted mean (n_folds,) of `values` (n,) over each fold's held-out rows."""
    means: Array = np.bincount(fold + 1, weight * values)[1:] / np.bincount(fold + 1, weight)[1:]
    return means


def check_probe(probe: Any) -> None:
    """Raise ParameterError unless the parameters that both probes have are valid."""
    owner = type(probe).__name__
    check_number(owner, "C", probe.C, "(0, inf)", "cv")
    check_grid(owner, "Cs", probe.Cs)
    check_folds(owner, probe.cv)
    check_option(owner, "scaling", probe.scaling, SCALINGS)
    check_bool(owner, "calibrate", probe.calibrate)
    check_number(owner, "tol", probe.tol, "(0, inf)")


def check_grid(owner: str, name: str, grid: Any) -> None:
    """Raise ParameterError unless `grid` is "auto" or numbers > 0."""
    if is_word(grid, "auto"):
        return
    values = np.asarray(grid)
    are_positive = (is_number(value, "(0, inf)") for value in values.ravel().tolist())
    if values.ndim != 1 or not len(values) or not all(are_positive):
        raise parameter_error(owner, name, "'auto' or numbers > 0", grid)
