"""The linear probe for regression: ridge regression on embeddings."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import Bunch

from featuretl._core.parameters import check_number, check_option
from featuretl._core.types import Array
from featuretl._learning.arrays import library_of
from featuretl._learning.folds import fold_of_rows
from featuretl._learning.groups import copies_of, read_groups
from featuretl._learning.labels import all_numbers
from featuretl._learning.rows import SCALINGS, Rows, Workers, affine, one_thread_pool
from featuretl._learning.targets import Targets, check_length, read_matrix, read_weight
from featuretl.exceptions import FeatureTLWarning
from featuretl.heads._solver.path import check_grid

_AUTO_ALPHAS = np.logspace(-6, 3, 28)
_FOLDS_OF_GROUPS = 5

# Eigenvalues and eigenvectors of Z'WZ, their products with Y, and the mean of Y.
Solution = tuple[Array, Array, Array, Array]


@dataclass(eq=False, repr=False)
class LinearProbeRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression on embeddings, with built-in standardisation and leave-one-out alpha.

    Parameters
    ----------
    alpha : float > 0 or "loo", default="loo"
        Strength of the penalty on the standardised coefficients; the loss is a sum over rows.
        "loo" chooses the value with the least squared leave-one-out error or, with `groups` in
        `fit`, the least squared error over five folds of whole groups.
    alphas : "auto" or array-like of float > 0, default="auto"
        Candidates of ``alpha="loo"``: "auto" is 28 values from 1e-6 to 1e3 times the sum of the
        weights (the number of rows).
    scaling : as in `LinearProbeClassifier`

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (n_outputs, d) and (n_outputs,), or (d,) and float
        Coefficients and intercepts for X as given; float32, or float64 for float64 X.
    alpha_ : float
        The penalty of the fitted head, one for all outputs.
    path_ : Bunch
        With ``alpha="loo"``: `alpha` (m,), and `mean_squared_error` (m, n_outputs) on left-out or
        held-out rows.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    sklearn.linear_model.RidgeCV : Other folds and scores, one penalty per output.

    Notes
    -----
    One eigendecomposition serves all alphas. If ``Q L Q'`` is that of the weighted Gram matrix of
    the standardised rows, row i has the leverage
    ``h_i = w_i (1 / sum(w) + sum_j (z_i q_j)^2 / (l_j + alpha))`` and the leave-one-out error
    ``e_i / (1 - h_i)``, so that two passes over X suffice. Leaving out a row updates the mean but
    not the scale. The choice of alpha divides the error of each output by its variance. Equal rows
    of X are left out together, so that a weight of 2 equals a repeated row. With groups, each fold
    is standardised and decomposed separately.

    References
    ----------
    Rifkin and Lippert, Notes on Regularized Least Squares, MIT-CSAIL-TR-2007-025.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from featuretl.heads.ridge import LinearProbeRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> head = LinearProbeRegressor().fit(X, y)
    >>> round(head.score(X, y), 2)
    0.52
    """

    alpha: float | str = "loo"
    _: KW_ONLY
    alphas: Any = "auto"
    scaling: str = "floored"

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head; parameters and errors are those of `LinearProbeClassifier.fit`.

        `y` has numbers, (n,) or (n, n_outputs). A FeatureTLWarning says that there are fewer groups
        than folds, or one group, which is ignored.
        """
        owner = type(self).__name__
        check_option(owner, "scaling", self.scaling, SCALINGS)
        check_number(owner, "alpha", self.alpha, "(0, inf)", "loo")
        check_grid(owner, "alphas", self.alphas)
        X = read_matrix(self, X, min_rows=2, dispatch=True)
        Y = all_numbers(owner, y)
        check_length(len(X), "y", len(Y))
        is_flat, Y = Y.ndim == 1, Y.reshape(len(X), -1)
        weight = read_weight(self, sample_weight, len(X))
        groups = read_groups(owner, groups, len(X))
        fold = self._fold_of_groups(X, weight, groups) if self.alpha == "loo" else None
        if self.alpha == "loo" and fold is None:
            Y, weight = _merged(Y, weight, copies_of(X))
        with one_thread_pool(X) as workers:
            rows = Rows(X, weight, workers, self.scaling)
            values, vectors, image, center = solution = _solution(rows, Y)
            self.alpha_ = self.alpha
            if self.alpha == "loo":
                self._choose(rows, solution, Y, fold, workers)
        coef = (vectors @ (image / (values[:, None] + self.alpha_))).T / rows.scale_
        intercept = center - coef @ rows.mean_.astype(np.float64)
        self.coef_, self.intercept_ = coef.astype(rows.dtype), intercept.astype(rows.dtype)
        if is_flat:
            self.coef_, self.intercept_ = self.coef_[0], self.intercept_[0]
        return self

    def predict(self, X: Any) -> Array:
        """Return ``X @ coef_.T + intercept_`` in blocks: (n,) or (n, n_outputs), as `y` was.

        Predictions are float32, or float64 for float64 X.
        """
        X = read_matrix(self, X, reset=False, dispatch=True)
        predicted = affine(X, np.atleast_2d(self.coef_), self.intercept_)
        return predicted[:, 0] if self.coef_.ndim == 1 else predicted

    def _fold_of_groups(self, X: Array, weight: Array, groups: Array | None) -> Array | None:
        """Return the fold of each row (n,), or None for leave-one-out, without usable groups."""
        if groups is None or len(np.unique(groups)) == len(groups):
            return None
        owner, numbers = type(self).__name__, Targets(np.zeros(1), np.zeros(len(X), int))
        if groups.max() < 1:
            message = f"{owner} leaves out single rows, because groups has one value only."
            warnings.warn(message, FeatureTLWarning, stacklevel=3)
            return None
        return fold_of_rows(owner, numbers, groups, _FOLDS_OF_GROUPS, 0, weight=weight)

    def _choose(
        self, rows: Rows, solution: Solution, Y: Array, fold: Array | None, workers: Workers
    ) -> None:
        """Set `alpha_` and `path_` by leaving out each row, or by holding out each fold."""
        weight = rows.weight
        auto = isinstance(self.alphas, str)
        alphas = weight.sum() * _AUTO_ALPHAS if auto else np.ravel(self.alphas).astype(np.float64)
        alphas = np.sort(alphas)
        error = np.zeros((len(alphas), Y.shape[1]))
        if fold is None:
            error += _squared_errors(rows, solution, Y, alphas)
        for number in range(0 if fold is None else fold.max() + 1):
            rest = Rows(rows.source, weight * (fold != number), workers, self.scaling)
            held_out = weight * (fold == number)
            error += _squared_errors(rest, _solution(rest, Y), Y, alphas, held_out)
        variance = weight @ np.square(Y - solution[-1])
        relative = (error / np.where(variance > 0, variance, 1)).mean(axis=1)
        self.alpha_ = float(alphas[relative.argmin()])
        self.path_ = Bunch(alpha=alphas, mean_squared_error=error / weight.sum())


def _solution(rows: Rows, Y: Array) -> Solution:
    center = np.average(Y, axis=0, weights=rows.weight)
    values, vectors = _decompose(rows)
    xp, near_vectors = library_of(rows.source), rows.near(vectors)
    weighted = rows.near(rows.weight[:, None] * (Y - center))

    def visit(where: slice, Z: Array) -> list[Array]:
        return [xp.asarray(Z @ near_vectors, dtype=xp.float64).T @ weighted[where]]

    (image,) = rows.sweep(visit)
    return values, vectors, image, center


def _squared_errors(
    rows: Rows, solution: Solution, Y: Array, alphas: Array, held_out: Array | None = None
) -> Array:
    """Return summed squared errors (m, n_outputs) of `held_out` rows, or the leave-one-out ones."""
    values, vectors, image, center = solution
    shrink = 1 / (values[:, None] + alphas)
    coef = (shrink[:, :, None] * image[:, None, :]).reshape(len(values), -1)
    total, n_alphas = rows.weight.sum(), len(alphas)
    weight = rows.near(rows.weight if held_out is None else held_out)
    Y, vectors, coef, shrink = map(rows.near, (Y - center, vectors, coef, shrink))
    xp = library_of(weight)

    def visit(where: slice, Z: Array) -> list[Array]:
        P = xp.asarray(Z @ vectors, dtype=xp.float64)
        error = Y[where][:, None, :] - (P @ coef).reshape(len(Z), n_alphas, -1)
        if held_out is None:
            leverage = weight[where, None] * (xp.square(P) @ shrink + 1 / total)
            error /= xp.clip(1 - leverage, 1e-12, None)[:, :, None]
        return [xp.einsum("i,iak->ak", weight[where], xp.square(error))]

    return rows.sweep(visit, coef.shape[1])[0]


def _merged(Y: Array, weight: Array, copies: Array | None) -> tuple[Array, Array]:
    """Return targets and weights in which the first of equal rows represents them all."""
    if copies is None:
        return Y, weight
    first, copy = np.unique(copies, return_index=True, return_inverse=True)[1:]
    total = np.bincount(copy, weight)
    summed = np.zeros((len(first), Y.shape[1]))
    np.add.at(summed, copy, weight[:, None] * Y)
    Y, weight = Y.copy(), np.zeros(len(Y))
    Y[first] = summed / np.where(total > 0, total, 1)[:, None]
    weight[first] = total
    return Y, weight


def _decompose(rows: Rows) -> tuple[Array, Array]:
    """Return eigenvalues (r,) and eigenvectors (d, r) of Z'WZ, from its smaller side."""
    if rows.n >= rows.d:
        root = rows.near(np.sqrt(rows.weight), rows.dtype)

        def visit(where: slice, Z: Array) -> list[Array]:
            Z = Z * root[where, None]
            return [Z.T @ Z]

        (gram,) = rows.sweep(visit)
        values, vectors = np.linalg.eigh(gram)
        return np.maximum(values, 0), vectors.astype(rows.dtype)
    Z, weight = rows.sample(rows.n, np.random.default_rng(0))
    Z = Z.astype(np.float64) * np.sqrt(weight)[:, None]
    values, left = np.linalg.eigh(Z @ Z.T)
    kept = values > values.max(initial=0) * np.finfo(rows.dtype).eps * rows.n
    values, left = values[kept], left[:, kept]
    return values, (Z.T @ (left / np.sqrt(values))).astype(rows.dtype)
