"""A matrix in several memory-mapped files, for training data larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from featuretl._core.types import Array
from featuretl.exceptions import InputError

_MAX_MAPPED = 8  # the pages of a mapped file count as memory of this process


class ShardedMatrix:
    """The rows of several ``.npy`` files as one read-only matrix.

    The heads of featuretl read it block by block. For other estimators, `numpy.asarray` loads all
    rows into memory, and ``matrix[start:stop]`` loads some.

    Parameters
    ----------
    paths : iterable of paths
        ``.npy`` files (n_i, d) of one floating-point dtype, in the order of the rows.

    Attributes
    ----------
    shape : (int, int)
    dtype : numpy.dtype

    Raises
    ------
    InputError
        If a file cannot be read, or its width or dtype differs from the others.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         np.save(f"{folder}/{i}.npy", np.full((2, 4), i, np.float16))
    ...     X = ShardedMatrix(f"{folder}/{i}.npy" for i in range(3))
    ...     X, X[1:4, :2].tolist()[-1], X[[5, 0]].tolist()[0]
    (ShardedMatrix(3 files, shape=(6, 4), dtype=float16), [1.0, 1.0], [2.0, 2.0, 2.0, 2.0])
    """

    ndim = 2

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._paths = [os.fspath(path) for path in paths]
        kinds = [(_mapped(path).shape, _mapped(path).dtype) for path in self._paths]
        if not kinds:
            raise InputError("A ShardedMatrix needs at least one file; got none.")
        (_, d), self.dtype = kinds[0]
        for path, (shape, dtype) in zip(self._paths, kinds, strict=True):
            if (shape[1], dtype) != (d, self.dtype):
                raise InputError(
                    f"{path!r} holds {dtype} {shape}; {self._paths[0]!r} holds {kinds[0][1]} "
                    f"{kinds[0][0]}: a ShardedMatrix needs one width and one dtype."
                )
        self._starts = np.cumsum([0, *(shape[0] for shape, _ in kinds)])
        self.shape = (int(self._starts[-1]), int(d))
        self._open = lru_cache(_MAX_MAPPED)(_mapped)

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardedMatrix, (self._paths,)

    def __repr__(self) -> str:
        return (
            f"ShardedMatrix({len(self._paths)} files, shape={self.shape}, dtype={self.dtype.name})"
        )

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("the rows are in several files, so that an array is always a copy")
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Array:
        """Return rows, indexed as in a NumPy array by an int, a slice, or an int or bool array."""
        rows, *columns = index if isinstance(index, tuple) else (index,)
        if isinstance(rows, slice):
            found = self._slice(*rows.indices(len(self)))
        elif np.ndim(rows) == 0:
            number = range(len(self))[rows]  # negative: from the end; IndexError if out of range
            found = self._slice(number, number + 1, 1)[0]
        else:
            found = self._take(np.arange(len(self))[np.asarray(rows)])
        return found[(..., *columns)] if columns else found

    def _slice(self, start: int, stop: int, step: int) -> Array:
        number = int(np.searchsorted(self._starts, start, "right")) - 1
        if step == 1 and start < stop <= self._starts[number + 1]:  # in one file: without a copy
            begin = self._starts[number]
            return self._open(self._paths[number])[start - begin : stop - begin]
        return self._take(np.arange(start, stop, step))

    def _take(self, rows: Array) -> Array:
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        files = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.unique(files):
            here = np.flatnonzero(files == number)
            out[here] = self._open(self._paths[number])[rows[here] - self._starts[number]]
        return out


def _mapped(path: str) -> Array:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise InputError(f"{path!r} cannot be mapped as a .npy file: {error}.") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        raise InputError(f"{path!r} must hold a matrix of floats.")
    return rows
