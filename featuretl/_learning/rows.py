"""Passes over X in standardized blocks that fit the processor's cache, on one pool of threads.

BLAS gets one thread: the pools of NumPy and SciPy compete for cores (scikit-learn issue 17334).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from featuretl._core.types import Array
from featuretl._learning.arrays import (
    exact_products,
    float_of,
    is_on_cpu,
    library_of,
    near,
    to_numpy,
)
from featuretl._learning.sharded import ShardedMatrix
from featuretl.exceptions import InputError

SCALINGS = ("floored", "features", "common")

_BLOCK_ELEMENTS = 2**20
_DEVICE_BLOCK_ELEMENTS = 2**24
_COPY_BYTES = 2**30


class Workers(NamedTuple):
    """A `map` function that runs blocks on `threads` threads; by default in the calling thread."""

    map: Callable[..., Iterable[Any]] = map
    threads: int = 1


class Rows:
    """Rows ``(X - mean_) / scale_`` of `X` (n, d), an array or a tensor, in float32 for float16.

    `weight` (n,) >= 0 weights the mean and scale; `scaling` is one of `SCALINGS`, or None for the
    unchanged rows. They are copied if the copy takes no more memory than X, or at most 1 GiB.
    """

    def __init__(
        self, X: Array, weight: Array, workers: Workers, scaling: str | None = "floored"
    ) -> None:
        self.n, self.d = X.shape
        self.dtype = np.dtype(float_of(X))
        self.weight, self.scaling = weight, scaling
        self.source = X
        self._copy: Array | None = None
        self.workers = workers
        self.mean_ = np.zeros(self.d, self.dtype)
        self.scale_ = np.ones(self.d, self.dtype)
        self._standard = self.near(self.mean_), self.near(self.scale_)
        if scaling is None:
            self._copy = X
            return
        mean, scale = self._moments()
        self.mean_, self.scale_ = mean.astype(self.dtype), scale.astype(self.dtype)
        self._standard = self.near(self.mean_), self.near(self.scale_)
        if _copy_is_affordable(X, self.dtype):
            copy = _empty_like(X, X.shape)
            self.sweep(lambda where, Z: copy.__setitem__(where, Z))
            self._copy = copy

    def sweep(self, visit: Callable[[slice, Array], Sequence[Any] | None], columns: int = 1) -> Any:
        """Call ``visit(where, block)`` for all blocks and return the float64 sums of its results.

        `columns`, the width of the arrays that `visit` makes, limits the size of a block. Blocks
        are in the library of `source`, sums in NumPy; they depend on the number of threads only.
        """
        step = max(16, _block_elements(self.source) // max(self.d, columns))
        threads = self.workers.threads if is_on_cpu(self.source) else 1
        spans = min(threads, -(-self.n // step))
        bounds = np.linspace(0, self.n, spans + 1).astype(int)

        def span(bound: tuple[int, int]) -> list[Array] | None:
            total: list[Array] | None = None
            for start in range(*bound, step):
                where = slice(start, min(start + step, bound[1]))
                part = visit(where, self._block(where))
                if part is None:
                    continue
                if total is None:
                    total = [_float64_copy(value) for value in part]
                else:
                    for value, addend in zip(total, part, strict=True):
                        value += addend
            return total

        spread = self.workers.map if spans > 1 else map
        totals = [total for total in spread(span, pairwise(bounds)) if total is not None]
        return [to_numpy(sum(parts)) for parts in zip(*totals, strict=True)] if totals else None

    def sample(self, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return at most `size` rows (s, d), drawn without replacement, and their weights (s,)."""
        chosen = np.arange(self.n)
        if self.n > size:
            chosen = np.sort(rng.choice(self.n, size, replace=False))
        rows = self.subset(chosen)
        return to_numpy(rows.source), rows.weight

    def near(self, array: Array, dtype: Any = None) -> Array:
        """Return a NumPy `array` in the library of the rows and on their device."""
        return near(self.source, array, dtype)

    def subset(self, chosen: Array) -> Rows:
        """Return the standardized rows at `chosen` (k,) with their weights and the same workers."""
        return Rows(self._block(chosen), self.weight[chosen], self.workers, scaling=None)

    def _block(self, where: slice | Array) -> Array:
        if self._copy is not None:
            return self._copy[where]
        mean, scale = self._standard
        if library_of(mean) is np:
            Z = np.subtract(self.source[where], mean, dtype=self.dtype)
        else:
            Z = self.source[where] - mean
        Z /= scale
        return Z

    def _moments(self) -> tuple[Array, Array]:
        """Return the weighted mean (d,) and scale (d,); raises InputError for NaN and infinity."""
        with np.errstate(invalid="ignore", over="ignore"):
            # Shifted by one row: E[x^2] - E[x]^2 cancels when the mean is large.
            xp = library_of(self.source)
            shift = xp.asarray(self.source[0], dtype=xp.float64)
            weights = self.near(self.weight)

            def visit(where: slice, block: Array) -> list[Array]:
                weight = weights[where]
                centred = block - shift
                suspect = ~xp.isfinite(centred.sum())
                return [suspect, weight @ centred, weight @ xp.square(centred, out=centred)]

            suspect, total, square = self.sweep(visit)
        if suspect:
            check_finite(self.source)
        mean, shift = total / self.weight.sum(), to_numpy(shift)
        variance = np.maximum(square / self.weight.sum() - mean**2, 0.0)
        noise = np.finfo(self.dtype).eps * np.abs(mean + shift) * 4
        variance = np.where(variance <= noise**2, 0.0, variance)
        return mean + shift, scale_of(variance, self.scaling)


@contextmanager
def one_thread_pool(X: Any = None) -> Iterator[Workers]:
    """Limit BLAS to one thread, and yield workers on all its threads; X may be on a device."""
    counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    threads = max(counts, default=1)
    with threadpool_limits(1, user_api="blas"), exact_products(X):
        if threads == 1:
            yield Workers()
        else:
            with ThreadPoolExecutor(threads) as pool:
                yield Workers(pool.map, threads)


def scale_of(variance: Array, scaling: str | None) -> Array:
    """Return the divisors of features with `variance` (..., d): 1 for constant features."""
    if scaling is None:
        return np.ones_like(variance)
    if scaling != "features":
        common = np.broadcast_to(variance.mean(axis=-1, keepdims=True), variance.shape)
        variance = common if scaling == "common" else np.maximum(variance, common)
    return np.sqrt(np.where(variance > 0, variance, 1.0))


def in_blocks(X: Array, compute: Callable[[Array], Array], columns: int) -> Array:
    """Return ``compute(block)`` for all rows, (n, columns), one block at a time."""
    out = _empty_like(X, (len(X), columns))
    with exact_products(X):
        for where, block in blocks(X, columns):
            out[where] = compute(block)
    return out


def affine(X: Array, coef: Array, intercept: Array) -> Array:
    """Return ``X @ coef.T + intercept`` (n, k) in blocks, for `coef` (k, d) in NumPy."""
    dtype = np.result_type(coef, float_of(X))
    xp, weight, level = library_of(X), near(X, coef, dtype), near(X, intercept, dtype)
    return in_blocks(X, lambda Z: xp.asarray(Z, dtype=weight.dtype) @ weight.T + level, len(coef))


def blocks(X: Array, columns: int = 1) -> Iterator[tuple[slice, Array]]:
    """Yield slices and rows (k, d) of `X` in blocks of some MiB; InputError for NaN or infinity."""
    xp = library_of(X)
    step = max(16, 4 * _block_elements(X) // max(X.shape[1], columns))
    for start in range(0, len(X), step):
        where = slice(start, min(start + step, len(X)))
        block = xp.asarray(X[where], dtype=getattr(xp, float_of(X)))
        if not xp.isfinite(block.sum(dtype=xp.float64)):
            check_finite(X)
        yield where, block


def check_finite(X: Array) -> None:
    """Raise InputError, with the number of affected rows, if X (n, d) holds NaN or an infinity."""
    xp, step = library_of(X), max(16, _BLOCK_ELEMENTS // X.shape[1])
    blocks = [X[start : start + step] for start in range(0, len(X), step)]
    bad = sum(int((~xp.isfinite(block)).any(axis=1).sum()) for block in blocks)
    if not bad:
        return
    nan = sum(int(xp.isnan(block).any(axis=1).sum()) for block in blocks)
    infinite = f" and {bad - nan} with infinity" if bad > nan else ""
    raise InputError(
        f"X must be finite; got {nan} of {len(X)} rows with NaN{infinite}: "
        'ImageEmbedder(on_error="nan") returns a row of NaN for an unreadable image; drop these '
        "rows with keep = numpy.isfinite(X).all(axis=1), then X[keep] and y[keep]."
    )


def finite_matrix(what: str, X: Any) -> Array:
    """Return X (n, d) as floats, without a copy if possible; raises InputError unless finite."""
    X = np.asarray(X)
    if X.ndim != 2 or not X.size:
        raise InputError(f"{what} must have the shape (n, d); got {X.shape}.")
    X = X if X.dtype.kind == "f" else X.astype(np.float64)
    check_finite(X)
    return X


def _copy_is_affordable(X: Array, dtype: Any) -> bool:
    size = X.shape[0] * X.shape[1] * np.dtype(dtype).itemsize
    if size <= _COPY_BYTES or size > X.nbytes:
        return size <= _COPY_BYTES
    if library_of(X) is not np:  # a tensor may be a memory map, or fill most of its device
        return False
    source: Any = X
    while source is not None:
        if isinstance(source, (np.memmap, ShardedMatrix)):
            return False
        source = getattr(source, "base", None)
    return True


def _empty_like(X: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of `shape` in the library of X, on its device, for what is computed of X."""
    xp = library_of(X)
    where = {} if xp is np else {"device": X.device}
    return xp.empty(shape, dtype=getattr(xp, float_of(X)), **where)


def _block_elements(X: Array) -> int:
    return _BLOCK_ELEMENTS if is_on_cpu(X) else _DEVICE_BLOCK_ELEMENTS


def _float64_copy(value: Any) -> Any:
    xp = library_of(value)
    return np.array(value, np.float64) if xp is np else value.to(xp.float64, copy=True)
