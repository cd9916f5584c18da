"""The choice of C: a warm-started path over all folds at once, coarse and then fine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl._core.parameters import is_word, parameter_error
from featuretl._core.types import Array
from featuretl._learning.targets import is_positive
from featuretl.heads._solver.problem import LinearProblem, Spectrum

COARSE = tuple(10.0**exponent for exponent in range(-5, 2))
_FINE = (-2 / 3, -1 / 3, 1 / 3, 2 / 3)
# Scores need less precision than the final fit.
_LOOSER = 10
_PATIENCE = 2

Scores = Callable[[Array], dict[str, Array]]


def search(
    problem: LinearProblem,
    spectrum: Spectrum,
    Cs: Any,
    scores: Scores,
    criterion: str,
    tol: float,
    max_iter: int,
) -> Bunch:
    """Fit all folds along `Cs` and return the path, the best C and its held-out logits.

    Parameters
    ----------
    Cs : "auto" or array-like of float
        "auto" walks up the decades from 1e-5 to 10 until the score has fallen short of the best one
        twice in a row (an equal one has not), then tries four values within a decade of the best.
    scores : callable
        Maps held-out logits (n, columns) to named scores (n_folds,), larger is better.
    criterion : str
        The name of the score whose mean over the folds decides; after it the other scores, in their
        order, and then the smaller C.

    Returns
    -------
    Bunch
        `C` (m,), ascending; an array (m, n_folds) for each score; `best` the C, `logits`
        (n, columns) its held-out logits, `rank` its mean scores, to be compared.
    """
    walk = _Walk(problem, spectrum, scores, criterion, _LOOSER * tol, max_iter)
    if isinstance(Cs, str):
        walk.up(COARSE, _PATIENCE)
        peak = walk.best
        walk.up([peak * 10**exponent for exponent in _FINE if exponent < 0], None)
        walk.up([peak * 10**exponent for exponent in _FINE if exponent > 0], None)
    else:
        walk.up(sorted(float(C) for C in Cs), None)
    return walk.result()


def fold_means(values: Array, fold: Array, n_folds: int, weight: Array) -> Array:
    """Return the weighted mean (n_folds,) of `values` (n,) over the rows that a fold holds out."""
    size = np.bincount(fold + 1, weight, n_folds + 1)[1:]
    return np.bincount(fold + 1, weight * values, n_folds + 1)[1:] / size


def rank_of(scores: dict[str, Array], criterion: str) -> tuple[float, ...]:
    """Return the means over folds of named scores (n_folds,), the criterion's first.

    They are rounded to 12 places, so that equal accuracies are equal.
    """
    means = {name: round(float(score.mean()), 12) for name, score in scores.items()}
    return means.pop(criterion), *means.values()


def check_grid(owner: str, name: str, grid: Any) -> None:
    """Raise ParameterError unless `grid` is "auto" or numbers > 0."""
    if is_word(grid, "auto"):
        return
    values = np.asarray(grid)
    if values.ndim != 1 or not len(values) or not all(map(is_positive, values.tolist())):
        raise parameter_error(owner, name, "'auto' or numbers > 0", grid)


class _Walk:
    """Where the path has been: scores per C, and the solutions to start from."""

    def __init__(
        self,
        problem: LinearProblem,
        spectrum: Spectrum,
        scores: Scores,
        criterion: str,
        tol: float,
        max_iter: int,
    ) -> None:
        self._solve = lambda C, start: problem.solve(C, start, spectrum, tol, max_iter).x
        self._problem, self._scores, self._criterion = problem, scores, criterion
        self._scored: dict[float, dict[str, Array]] = {}
        self._solutions: dict[float, Array] = {}
        self.best = np.nan
        self._best_logits: Array | None = None

    def up(self, Cs: Any, patience: int | None) -> None:
        """Try ascending `Cs`; stop after `patience` values in a row that fall short of the best."""
        short = 0
        for C in Cs:
            below = [c for c in self._solutions if c < C]
            start = self._solutions[max(below)] if below else self._problem.start()
            x = self._solve(C, start)
            logits = self._problem.held_out_logits(x)
            self._scored[C] = self._scores(logits)
            if np.isnan(self.best) or (self._rank(C), -C) > (self._rank(self.best), -self.best):
                self.best, self._best_logits = C, logits
            self._remember(C, x)
            short = short + 1 if self._rank(C)[0] < self._rank(self.best)[0] else 0
            if short == patience:
                break

    def result(self) -> Bunch:
        """Return the path as `search` does."""
        Cs = sorted(self._scored)
        names = self._scored[Cs[0]]
        table = {name: np.array([self._scored[C][name] for C in Cs]) for name in names}
        rank, logits = self._rank(self.best), self._best_logits
        return Bunch(C=np.array(Cs), **table, best=self.best, logits=logits, rank=rank)

    def _rank(self, C: float) -> tuple[float, ...]:
        return rank_of(self._scored[C], self._criterion)

    def _remember(self, C: float, x: Array) -> None:
        """Keep the solutions from just below the best C on: those that a later C can start from."""
        self._solutions[C] = x
        below = sorted(c for c in self._solutions if c < self.best)
        for c in below[:-1]:
            del self._solutions[c]
