"""Multi-task targets: a column of labels for each task, in which values may be missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.labels import all_numbers, columns_of, is_label_sets, some_labels
from featuretl._learning.targets import check_length
from featuretl.exceptions import FeatureTLError, InputError

KINDS = ("classification", "regression")
MOST_CLASSES = 20  # a column with more distinct whole numbers is regression


class Column(NamedTuple):
    """The labels `y` (k,) of a task at positions `rows` (k,), its `kind`, and the reason for it."""

    kind: str
    why: str
    rows: Array
    y: Array


def table_of(owner: str, y: Any, n: int) -> dict[str, Any]:
    """Return the columns of `y`, a DataFrame, a dict or an array (n, n_tasks), by name."""
    if y is None:
        raise InputError(f"{owner} requires y to be passed, but the target y is None.")
    table = columns_of(y)
    if table is None:
        values = y if isinstance(y, np.ndarray) else _as_objects(y)
        if values.ndim != 2:
            raise InputError(
                f"y of {owner} must have a column for each task, as a DataFrame, a dict of columns "
                f"or (n, n_tasks); got shape {values.shape}: use y.reshape(-1, 1) for one task."
            )
        table = {str(k): values[:, k] for k in range(values.shape[1])}
    if not table or "" in table:
        raise InputError(f"y of {owner} must have at least one column, and no empty name.")
    for name, column in table.items():
        length = len(column) if hasattr(column, "__len__") else 0
        check_length(n, f"Column {printable(name)!r} of y", length)
    return table


def read_column(name: str, column: Any, kind: str | None = None) -> Column:
    """Return the labels of a task; InputError if they do not fit its `kind`, inferred if None."""
    what = f"Column {printable(name)!r}"
    y, known = some_labels("y", column, what)
    if y.ndim != 1 or is_label_sets(y):
        raise InputError(f"{what} of y must hold one value per row.")
    if not len(y):
        raise InputError(f"{what} of y has no label in any row; leave it out.")
    found, why = _kind_of(y, str(getattr(column, "dtype", getattr(column, "type", ""))).lower())
    if kind not in (None, found):
        why = "as asked"
    kind = kind or found
    if kind == "regression":
        y = all_numbers("y", y, what)
    elif y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    return Column(kind, why, np.flatnonzero(known), y)


@contextlib.contextmanager
def in_column(name: str) -> Iterator[None]:
    """Add the name of the column to errors that are raised in the context."""
    try:
        yield
    except FeatureTLError as error:
        raise type(error)(f"In column {printable(name)!r} of y: {error}") from error


def _as_objects(y: Any) -> Array:
    """Return rows of values as (n, n_tasks), dtype object: NumPy would turn numbers into text."""
    if hasattr(y, "__array__"):
        return np.asarray(y)
    if isinstance(y, (str, bytes)) or not isinstance(y, Iterable):
        raise InputError(f"y must have a column for each task; got {type(y).__name__}.")
    rows = [row if isinstance(row, (list, tuple, np.ndarray)) else [row] for row in y]
    if not rows or len({len(row) for row in rows}) > 1:
        raise InputError("y must have equally many values in every row, one for each task.")
    values = np.empty((len(rows), len(rows[0])), object)
    for i, row in enumerate(rows):
        values[i] = row
    return values


def _kind_of(y: Array, dtype: str) -> tuple[str, str]:
    """Return the kind of task of labels `y` (k,) in a column of this dtype, and the reason."""
    if dtype.startswith(("category", "categorical", "enum", "dictionary")):
        return "classification", "categories"
    if y.dtype.kind == "b":
        return "classification", "True and False"
    if y.dtype.kind not in "iuf":
        return "classification", "text"
    if (y != np.round(y)).any():
        return "regression", "numbers with a fraction"
    n = len(np.unique(y))
    if n <= MOST_CLASSES:
        return "classification", f"{n} different whole numbers"
    return "regression", f"{n} different whole numbers, more than {MOST_CLASSES}"
