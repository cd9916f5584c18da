"""Linear heads on portions of rows, each of which is seen once.

The loss of earlier rows is kept as a second-order expansion at the last solution, whose Hessian is
one Gram matrix of the rows, weighted by their uncertainty, times a number per column: the online
Laplace approximation (Ritter, Botev and Barber 2018, arXiv:1805.07810).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featuretl._core.types import Array
from featuretl._learning.rows import Rows, Workers, check_finite
from featuretl.heads._solver.lbfgs import Solution, minimise
from featuretl.heads._solver.problem import LinearProblem, rescaled

# Lower limit of a row's second derivatives: a fitted portion of a single class has almost none, and
# the next portion would make the head forget it.
_LEAST_UNCERTAINTY = 0.05


class Stream:
    """Statistics of the rows seen so far.

    Parameters are relative to the mean and scale of the rows of `first`, yet to be added.
    """

    def __init__(self, first: LinearProblem) -> None:
        rows = first.rows
        self.dtype, self._scaling = rows.dtype, rows.scaling
        self._mean, self._scale = rows.mean_, rows.scale_
        self._moments: tuple[Any, Any, Any] = 0.0, np.zeros(rows.d), np.zeros(rows.d)
        # The loss of all rows so far at `_at`, its derivatives, and the total weight of the rows.
        self._at = first.start().reshape(first.shape)
        self._slope, self._spread = np.zeros_like(self._at), np.zeros(self._at.shape[:2])
        self._loss, self._total = np.zeros((2, len(self._at)))
        self._gram, self._gram_weight = np.zeros((rows.d + 1, rows.d + 1)), 0.0

    def rows(self, X: Array, weight: Array, workers: Workers) -> Rows:
        """Return the rows of a portion for `add`; raises InputError for NaN and infinity."""
        Z = np.subtract(X, self._mean, dtype=self.dtype)
        Z /= self._scale
        if not np.isfinite(Z.sum()):
            check_finite(X)
        return Rows(Z, weight, workers, scaling=None)

    def add(self, problem: LinearProblem, C: float, tol: float, max_iter: int) -> Solution:
        """Add a portion, the problem of `rows`; return the solution for all portions."""
        size, sums, squares = moments = self._moments_with(problem.rows)
        variance = squares / size - (sums / size) ** 2
        penalty = rescaled(variance, self._scale, self._scaling) ** 2 / C
        total = self._total + problem.total

        def evaluate(x: Array, which: Array) -> tuple[Array, Array, Array]:
            value, gradient, spread = self._evaluate(problem, x, which)
            coef = x.reshape(gradient.shape)[..., :-1]
            value += (penalty * np.square(coef)).sum(axis=(1, 2)) / 2
            gradient[..., :-1] += penalty * coef
            part = total[which, None]
            return value / part[:, 0], gradient.reshape(x.shape) / part, spread / part

        precondition = problem.preconditioner(penalty.mean() / total)
        start = self._at.reshape(len(total), -1)
        solution = minimise(evaluate, precondition, start, tol, max_iter)
        self._move(problem, solution.x)
        self._total, self._moments = total, moments
        return solution

    def unscaled(self) -> tuple[Array, Array]:
        """Return coef (columns, d) and intercept (columns,) for raw X, float64."""
        at = self._at.reshape(self._spread.size, -1)
        coef = at[:, :-1] / self._scale.astype(np.float64)
        return coef, at[:, -1] - coef @ self._mean.astype(np.float64)

    def _moments_with(self, rows: Rows) -> tuple[Any, Any, Any]:
        """Return the sum of weights and weighted sums of rows and squares (d,), with `rows`."""

        def visit(where: slice, Z: Array) -> list[Array]:
            weight = rows.weight[where]
            return [weight.sum(), weight @ Z, weight @ np.square(Z)]

        pairs = zip(rows.sweep(visit), self._moments, strict=True)
        size, total, squares = (own + before for own, before in pairs)
        return size, total, squares

    def _evaluate(
        self, problem: LinearProblem, x: Array, which: Array
    ) -> tuple[Array, Array, Array]:
        """Return loss (p,) with `problem`, gradient (p, columns, d + 1), curvature (p, columns)."""
        value, gradient, spread = problem.evaluate(x, which, np.zeros(len(which)))
        own = problem.total[which]
        moved = x.reshape(-1, *self._at.shape[1:]) - self._at[which]
        rate = self._spread[which] / (self._gram_weight or 1.0)
        pull = rate[..., None] * (moved @ self._gram)
        value = own * value + self._loss[which]
        value += (moved * (self._slope[which] + pull / 2)).sum((1, 2))
        gradient = own[:, None, None] * gradient.reshape(moved.shape) + self._slope[which] + pull
        return value, gradient, own[:, None] * spread + self._spread[which]

    def _move(self, problem: LinearProblem, x: Array) -> None:
        """Expand the loss of all rows, with those of `problem`, at `x` (problems, size)."""
        at_x = self._evaluate(problem, x, np.arange(len(x)))
        logits = problem.held_out_logits(x)  # of the only fold, which holds nothing out
        least = _LEAST_UNCERTAINTY / max(self._spread.size, 2)

        def visit(where: slice, Z: Array) -> list[Array]:
            curvature = problem.loss(logits[where][:, None], problem.target[where])[1][:, 0]
            curvature = np.maximum(curvature, least) * problem.weight[where]
            uncertainty = curvature.sum(axis=1).astype(Z.dtype)
            Z = np.column_stack([Z, np.ones(len(Z), Z.dtype)])
            return [(Z * uncertainty[:, None]).T @ Z, uncertainty.sum(), curvature.sum(axis=0)]

        gram, weight, spread = problem.rows.sweep(visit)
        self._loss, self._slope, _ = at_x
        self._gram, self._gram_weight = self._gram + gram, self._gram_weight + float(weight)
        self._spread = self._spread + spread.reshape(self._spread.shape)
        self._at = x.reshape(self._at.shape)
