"""The objective of the linear heads on standardised rows z, for all folds, and its minimiser.

Each problem minimises ``sum_i w_i loss(V z_i + b, y_i) / sum(w) + l2 / 2 ||V||^2`` over V and b:
scikit-learn's `LogisticRegression` objective divided by ``C sum(w)``, with ``l2 = 1 / (C sum(w))``.
A fold gives held-out rows the weight zero; its own mean and scale enter through V and b, so that
all folds share one block of rows and one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from featuretl._core.types import Array
from featuretl._learning.arrays import library_of, to_numpy
from featuretl._learning.rows import Rows, scale_of
from featuretl.heads._solver.lbfgs import Solution, minimise

Loss = Callable[[Array, Array], tuple[Array, Array]]

_RANK = 256
_SAMPLE_ROWS = 8192
_SAMPLED = 16
_FEWEST_SAMPLED = 1024
_MOST_SAMPLED = 2**26  # elements: 256 MiB of float32
_SAMPLE_TOL = 1e-4
_ZERO = np.finfo(np.float64).tiny
_MOST_PRODUCTS = 2**23  # of rows with each other in all folds, for a `RowSpaceProblem`


class Spectrum(NamedTuple):
    """The Gram matrix G of standardised rows: `values` along `vectors`, `tail` across them.

    ``(a_k G + l2)^-1``, with the mean ``a_k`` of ``p (1 - p)`` in column k, preconditions L-BFGS.
    """

    vectors: Array
    values: Array
    tail: float

    @classmethod
    def of(cls, rows: Rows) -> Spectrum:
        """Estimate the leading 256 directions of `rows` and the mean of the others.

        It is the randomised range finder of Halko, Martinsson and Tropp, doi:10.1137/090771806.
        """
        rng = np.random.default_rng(0)
        Z, weight = rows.sample(_SAMPLE_ROWS, rng)
        Z = Z * np.sqrt(weight / weight.sum()).astype(Z.dtype)[:, None]
        rank = min(_RANK, *Z.shape)
        probe = rng.standard_normal((Z.shape[1], rank)).astype(Z.dtype)
        basis = np.linalg.qr((Z.T @ (Z @ probe)).astype(np.float64))[0]
        image = Z @ basis.astype(Z.dtype)
        values, turn = np.linalg.eigh((image.T @ image).astype(np.float64))
        left = float(np.einsum("ij,ij->", Z, Z, dtype=np.float64) - values.sum())
        # Directions that are zero to float32 precision must not get steps of length C.
        least = 1e-6 * values[-1]
        tail = max(left / max(rows.d - rank, 1), least)
        # The precision of the rows is enough for a preconditioner, and float32 is twice as fast.
        return cls((basis @ turn).astype(Z.dtype), np.maximum(values, least), tail)

    def solve(self, q: Array, curvature: Array, l2: Array) -> Array:
        """Return ``(curvature * G + l2)^-1 q`` for q (..., d) and curvature, l2 (...)."""
        base = 1 / (curvature * self.tail + l2)
        lead = 1 / (curvature[..., None] * self.values + l2[..., None]) - base[..., None]
        along = q.astype(self.vectors.dtype) @ self.vectors
        return base[..., None] * q + (along * lead.astype(along.dtype)) @ self.vectors.T


class LinearProblem:
    """A linear model on `rows` in every fold: multinomial, or one binary problem per label.

    `target` has class numbers (n,), or 0 and 1 (n, labels) for one problem per label; `weight` (n,
    1) or (n, labels) has sample weights times class weights; `fold` (n,) has the fold that holds a
    row out, -1 for none. `shape` of the parameters is (problems, columns per problem, d + 1), the
    intercept last; `total` (problems,) is the sum of the weights in the loss. What belongs to rows
    is in their array library and on their device, the rest in NumPy.
    """

    def __init__(
        self,
        rows: Rows,
        target: Array,
        loss: Loss,
        n_columns: int,
        weight: Array,
        fold: Array | None = None,
    ) -> None:
        fold = np.full(rows.n, -1) if fold is None else fold
        self.rows = rows
        self.target, self.weight, self.fold = (rows.near(of) for of in (target, weight, fold))
        self.n_columns, self.loss = n_columns, loss
        self.n_folds = max(int(fold.max()) + 1, 1)
        self._binary = target.ndim == 2
        per_fold = n_columns if self._binary else 1
        self._fold_of, self._label_of = np.divmod(np.arange(self.n_folds * per_fold), per_fold)
        self.shape = (-1, n_columns // per_fold, rows.d + 1)
        self._mean, self._scale, self.total = self._moments()

    @cached_property
    def spectrum(self) -> Spectrum:
        """The spectrum of the rows in the problem's coordinates."""
        return Spectrum.of(self.rows)

    def on_folds(self, fold: Array | None = None) -> LinearProblem:
        """Return the same problem in every fold, or without folds, in the form to solve it."""
        how = (self.rows, self.target, self.loss, self.n_columns, self.weight, fold)
        n, n_folds = self.rows.n, 1 if fold is None else fold.max() + 1
        few = 2 * n <= self.rows.d and n * n * n_folds <= _MOST_PRODUCTS
        if few and library_of(self.rows.source) is np:
            return RowSpaceProblem(*how)
        problem = LinearProblem(*how)
        problem.spectrum = self.spectrum
        return problem

    def start(self) -> Array:
        """Return parameters of zeros (problems, size)."""
        return np.zeros((len(self._fold_of), self.shape[1] * self.shape[2]))

    def start_from_sample(self, C: float, tol: float, max_iter: int) -> Array:
        """Return a start for many rows without folds: the solution at `C` on a random 16th."""
        size = min(self.rows.n // _SAMPLED, _MOST_SAMPLED // self.rows.d)
        if size < _FEWEST_SAMPLED:
            return self.start()
        chosen = np.sort(np.random.default_rng(0).choice(self.rows.n, size, replace=False))
        rows, target, weight = self.rows.subset(chosen), self.target[chosen], self.weight[chosen]
        sample = LinearProblem(rows, target, self.loss, self.n_columns, weight)
        sample.spectrum = self.spectrum
        if not (sample.total > 0).all():
            return self.start()
        # The penalty relative to the loss is that of all rows.
        C = C * float((self.total / sample.total).mean())
        return sample.solve(C, sample.start(), max(tol, _SAMPLE_TOL), max_iter).x

    def solve(self, C: float, start: Array, tol: float, max_iter: int) -> Solution:
        """Minimise at `C` from `start` (problems, size)."""
        l2 = 1 / (C * self.total)
        precondition = self.preconditioner(l2)
        return minimise(
            lambda x, which: self.evaluate(x, which, l2[which]), precondition, start, tol, max_iter
        )

    def preconditioner(self, l2: Array) -> Callable[..., Array]:
        """Return the preconditioner for `minimise`, given the penalties (problems,)."""

        def precondition(q: Array, curvature: Array, which: Array) -> Array:
            q = q.reshape(self.shape)
            out = np.empty_like(q)
            strength = np.broadcast_to(l2[which, None], curvature.shape)
            out[..., :-1] = self._solve_spectrum(q[..., :-1], curvature, strength, which)
            out[..., -1] = q[..., -1] / curvature
            return out.reshape(len(q), -1)

        return precondition

    def evaluate(self, x: Array, which: Array, l2: Array) -> tuple[Array, Array, Array]:
        """Return value (p,), gradient (p, size), curvature (p, columns) of problems `which`."""
        shape = (len(which), self.shape[1])
        loss, slope, level, curvature = self._sums(x, which)
        fold, total = self._fold_of[which], self.total[which]
        slope, level = slope.reshape(*shape, -1), level.reshape(shape)
        slope -= level[:, :, None] * self._mean[fold]
        coef = x.reshape(self.shape)[..., :-1]
        gradient = np.empty((*shape, self.shape[2]))
        gradient[..., :-1] = slope / self._scale[fold] / total[:, None, None]
        gradient[..., :-1] += l2[:, None, None] * coef
        gradient[..., -1] = level / total[:, None]
        value = loss / total + l2 / 2 * np.square(coef).sum(axis=(1, 2))
        curvature = np.maximum(curvature.reshape(shape) / total[:, None], 1e-12)
        return value, gradient.reshape(len(which), -1), curvature

    def _sums(self, x: Array, which: Array) -> list[Array]:
        """Return the sums of loss, slope, residual and curvature over all rows, by column."""
        visit = self._visitor(x, which)
        sums: list[Array] = self.rows.sweep(visit, len(which) * self.shape[1])
        return sums

    def _visitor(self, x: Array, which: Array) -> Callable[[slice, Array], list[Array]]:
        """Return a function that computes `_sums` for a block of rows."""
        xp, near = library_of(self.target), self.rows.near
        coef, intercept = map(near, self._in_rows(x, which))
        of_fold, label = near(self._fold_of[which]), near(self._label_of[which])
        # Binary problems are adjacent columns, multinomial ones are folds.
        shape = (len(which), self.shape[1])
        layout = shape[::-1] if self._binary else shape

        def visit(where: slice, Z: Array) -> list[Array]:
            residual = (Z @ coef.T + intercept).reshape(len(Z), *layout)
            target = self.target[where]
            target = target[:, label] if self._binary else target
            loss, curvature = self.loss(residual, target)
            weight = xp.asarray(self._loss_weight(where, of_fold, label), dtype=Z.dtype)
            weight = weight[:, None] if self._binary else weight[:, :, None]
            loss *= weight
            curvature *= weight
            residual *= weight
            flat = residual.reshape(len(Z), -1)
            return [
                loss.sum(axis=0, dtype=xp.float64).ravel(),
                _transposed_product(flat, Z),
                flat.sum(axis=0, dtype=xp.float64),
                curvature.sum(axis=0, dtype=xp.float64).ravel(),
            ]

        return visit

    def held_out_logits(self, x: Array) -> Array:
        """Return the logits (n, columns) of each row from the fold that held it out."""
        coef, intercept = map(self.rows.near, self._in_rows(x))
        out = np.empty((self.rows.n, self.n_columns), self.rows.dtype)
        xp = library_of(self.fold)

        def visit(where: slice, Z: Array) -> None:
            logits = (Z @ coef.T + intercept).reshape(len(Z), self.n_folds, self.n_columns)
            row = xp.arange(len(Z), device=logits.device)
            out[where] = to_numpy(logits[row, self.fold[where]])

        self.rows.sweep(visit, self.n_folds * self.n_columns)
        return out

    def unscaled(self, x: Array) -> tuple[Array, Array]:
        """Return coef (columns, d) and intercept (columns,) for raw X; needs a single fold."""
        coef, intercept = self._in_rows(x)
        coef = coef.astype(np.float64) / self.rows.scale_
        return coef, intercept - coef @ self.rows.mean_.astype(np.float64)

    def _solve_spectrum(self, q: Array, curvature: Array, l2: Array, which: Array) -> Array:
        """Return ``(curvature * G + l2)^-1 q`` for q (p, columns, size) of problems `which`."""
        return self.spectrum.solve(q, curvature, l2)

    def _in_rows(self, x: Array, which: Any = slice(None)) -> tuple[Array, Array]:
        """Return coef (p * columns, d) and intercept (p * columns,) for `rows`."""
        fold = self._fold_of[which]
        x = x.reshape(self.shape)
        coef = x[..., :-1] / self._scale[fold]
        intercept = x[..., -1] - (coef * self._mean[fold]).sum(axis=2)
        coef = coef.reshape(-1, coef.shape[2]).astype(self.rows.dtype)
        return coef, intercept.ravel().astype(self.rows.dtype)

    def _loss_weight(self, where: slice, of_fold: Array, label: Array) -> Array:
        """Return the loss weights (rows, p) in problems of these folds and labels (p,)."""
        weight: Array = (self.fold[where, None] != of_fold) * self.weight[where][:, label]
        return weight

    def _moments(self) -> tuple[Array, Array, Array]:
        """Return mean and scale (folds, 1, d) of the rows, and the loss weights (problems,)."""
        xp, near = library_of(self.target), self.rows.near
        folds, row_weight = near(np.arange(self.n_folds)), near(self.rows.weight)
        of_fold, label = near(self._fold_of), near(self._label_of)

        def visit(where: slice, Z: Any) -> list[Array]:
            if xp is not np:
                Z = Z.to(xp.float64)  # blocks are longer on a device
            in_training = self.fold[where, None] != folds
            weight = xp.asarray(in_training * row_weight[where, None], dtype=Z.dtype).T
            loss_weight = self._loss_weight(where, of_fold, label).sum(axis=0)
            return [weight @ Z, weight @ xp.square(Z), weight.sum(axis=1), loss_weight]

        total, square, size, loss_weight = self.rows.sweep(visit)
        mean = total / size[:, None]
        variance = square / size[:, None] - mean**2
        scale = rescaled(variance, self.rows.scale_, self.rows.scaling)
        mean = mean if self.rows.scaling else np.zeros_like(mean)
        return mean[:, None, :], scale[:, None, :], loss_weight


class RowSpaceProblem(LinearProblem):
    """The problem of few rows in as many columns as they span; it has the same minimum.

    There the coefficients are a combination of the fold's rows (representer theorem: Kimeldorf and
    Wahba 1971, doi:10.1016/0022-247X(71)90184-3). Each fold thus has rows of its own, along the
    eigenvectors of the Gram matrix of the rows that it trains on.
    """

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        Z = self.rows.sample(self.rows.n, np.random.default_rng(0))[0]
        spans = list(self.rows.workers.map(partial(self._span, Z), range(self.n_folds)))
        size = max(len(values) for values, _, _ in spans)
        self._values = np.zeros((self.n_folds, size))
        self._features = np.zeros((self.n_folds, self.rows.n, size), self.rows.dtype)
        for k, (values, _, features) in enumerate(spans):
            self._values[k, : len(values)], self._features[k, :, : len(values)] = values, features
        self._basis = spans[0][1]
        self._standard = self._mean[0], self._scale[0]
        self._mean, self._scale = np.zeros((self.n_folds, 1, 1)), np.ones((self.n_folds, 1, 1))
        self.shape = (-1, self.shape[1], size + 1)

    def _span(self, Z: Array, k: int) -> tuple[Array, Array, Array]:
        """Return variances (r,), orthonormal basis (d, r) and coordinates (n, r) of fold k."""
        Z = (Z - self._mean[k]) / self._scale[k]
        weight = self.weight.max(axis=1) * (self.fold != k)
        weighted = Z * np.sqrt(weight / weight.sum())[:, None]
        values, vectors = np.linalg.eigh(weighted @ weighted.T)
        kept = values >= np.finfo(self.rows.dtype).eps * len(Z) * values[-1]
        values, vectors = np.maximum(values[kept], _ZERO), vectors[:, kept]
        basis = weighted.T @ (vectors / np.sqrt(values))
        return values, basis, Z @ basis

    def _sums(self, x: Array, which: Array) -> list[Array]:
        parts = []
        for k in np.unique(self._fold_of[which]):
            own = self._fold_of[which] == k
            parts.append(self._visitor(x[own], which[own])(slice(None), self._features[k]))
        return [np.concatenate(of) for of in zip(*parts, strict=True)]

    def held_out_logits(self, x: Array) -> Array:
        """Return the logits (n, columns) of each row from the fold that held it out."""
        coef, intercept = (of.reshape(self.n_folds, self.n_columns, -1) for of in self._in_rows(x))
        logits = self._features @ coef.transpose(0, 2, 1) + intercept.transpose(0, 2, 1)
        return logits[self.fold, np.arange(self.rows.n)]

    def unscaled(self, x: Array) -> tuple[Array, Array]:
        """Return coef (columns, d) and intercept (columns,) for raw X; needs a single fold."""
        x, (mean, scale) = x.reshape(self.n_columns, -1), self._standard
        coef = x[:, :-1] @ self._basis.T / scale
        intercept = x[:, -1] - coef @ mean[0]
        coef /= self.rows.scale_
        return coef, intercept - coef @ self.rows.mean_.astype(np.float64)

    def _solve_spectrum(self, q: Array, curvature: Array, l2: Array, which: Array) -> Array:
        values = self._values[self._fold_of[which], None]
        return q / (curvature[..., None] * values + l2[..., None])


def rescaled(variance: Array, scale: Array, scaling: str | None) -> Array:
    """Return the further divisor (d,) of rows that were divided by `scale` and have `variance`."""
    variance = np.where(variance > 1e-6, variance, 0.0) * scale**2.0
    return scale_of(variance, scaling) / scale


def _transposed_product(flat: Array, Z: Array) -> Array:
    """Return ``flat.T @ Z``; OpenBLAS is up to 50% slower if 4 does not divide the columns."""
    if library_of(Z) is not np:
        return flat.T @ Z
    columns = flat.shape[1]
    padded = np.pad(flat, ((0, 0), (0, -columns % 4))) if columns > 4 else flat
    return (padded.T @ Z)[:columns]
