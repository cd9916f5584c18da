"""The objective of the linear heads on standardised rows z, for all folds, and its minimiser.

Each problem minimises ``sum_i w_i loss(V z_i + b, y_i) / sum(w) + l2 / 2 ||V||^2`` over V and b:
scikit-learn's `LogisticRegression` objective divided by ``C sum(w)``, with ``l2 = 1 / (C sum(w))``.
A fold gives held-out rows the weight zero; its own mean and scale enter through V and b, so that
all folds share one block of rows and one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
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
        return cls(basis @ turn, np.maximum(values, least), tail)

    def solve(self, q: Array, curvature: Array, l2: Array) -> Array:
        """Return ``(curvature * G + l2)^-1 q`` for q (..., d) and curvature, l2 (...)."""
        base = 1 / (curvature * self.tail + l2)
        lead = 1 / (curvature[..., None] * self.values + l2[..., None]) - base[..., None]
        return base[..., None] * q + ((q @ self.vectors) * lead) @ self.vectors.T


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
        spectrum: Spectrum | None = None,
    ) -> None:
        fold = np.full(rows.n, -1) if fold is None else fold
        self.rows, self.spectrum = rows, spectrum or Spectrum.of(rows)
        self.target, self.weight, self.fold = (rows.near(of) for of in (target, weight, fold))
        self.n_columns, self.loss = n_columns, loss
        self.n_folds = max(int(fold.max()) + 1, 1)
        self._binary = target.ndim == 2
        per_fold = n_columns if self._binary else 1
        self._fold_of, self._label_of = np.divmod(np.arange(self.n_folds * per_fold), per_fold)
        self.shape = (-1, n_columns // per_fold, rows.d + 1)
        self._mean, self._scale, self.total = self._moments()

    def on_folds(self, fold: Array) -> LinearProblem:
        """Return the problem in every fold of the same rows, with the same spectrum."""
        how = (self.target, self.loss, self.n_columns, self.weight, fold, self.spectrum)
        return LinearProblem(self.rows, *how)

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
        how = (self.loss, self.n_columns, weight, None, self.spectrum)
        sample = LinearProblem(rows, target, *how)
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
            out[..., :-1] = self.spectrum.solve(q[..., :-1], curvature, strength)
            out[..., -1] = q[..., -1] / curvature
            return out.reshape(len(q), -1)

        return precondition

    def evaluate(self, x: Array, which: Array, l2: Array) -> tuple[Array, Array, Array]:
        """Return value (p,), gradient (p, size), curvature (p, columns) of problems `which`."""
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

        loss, slope, level, curvature = self.rows.sweep(visit, len(coef))
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

    def _in_rows(self, x: Array, which: Any = slice(None)) -> tuple[Array, Array]:
        """Return coef (p * columns, d) and intercept (p * columns,) for `rows`."""
        fold = self._fold_of[which]
        x = x.reshape(self.shape)
        coef = x[..., :-1] / self._scale[fold]
        intercept = x[..., -1] - (coef * self._mean[fold]).sum(axis=2)
        coef = coef.reshape(-1, self.rows.d).astype(self.rows.dtype)
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
