"""Items that callers pass: collections of them, and safe opening and hashing of files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from io import BufferedIOBase
from typing import Any

import numpy as np

from featuretl._core.files import open_local
from featuretl.exceptions import InputError, ItemError
from featuretl.images.inputs import is_file, one_column


def as_items(X: Any, owner: str) -> Sequence[Any]:
    """Return the items of a list, tuple, Series, 1-D array or one column; raises InputError."""
    X = one_column(X)
    if isinstance(X, Sequence) and not isinstance(X, (str, bytes)):
        return X
    got = type(X).__name__ + (f" of shape {X.shape}" if isinstance(X, np.ndarray) else "")
    raise InputError(
        f"X of {owner} must be a list, Series, 1-D array or one column of items; got {got}: wrap a "
        "single item in a list."
    )


def open_item(item: Any) -> BufferedIOBase:
    """Open a path or bytes. Raises OSError, or ItemError for other types."""
    if isinstance(item, bytes):
        return io.BytesIO(item)
    if not is_file(item):
        raise ItemError(f"a {type(item).__name__}; expected a path or bytes")
    return open_local(item)


def digest_of(item: Any) -> bytes:
    """Return the sha256 (32 bytes) of the file at a path, or of bytes."""
    with open_item(item) as file:
        return hashlib.file_digest(file, "sha256").digest()


def digest_of_array(array: np.ndarray, *facts: Any) -> bytes:
    """Return the sha256 (32 bytes) of an array's dtype, shape and values, and of further facts."""
    header = repr((array.dtype.str, array.shape, *facts)).encode() + b"\n"
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).digest()
