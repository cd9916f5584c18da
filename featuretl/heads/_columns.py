"""What `MultiTaskHead` reads: a column of labels for each task, gaps in it, and what kind of task it is."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from featuretl._validation import printable
from featuretl.exceptions import FeatureTLError, InputError
from featuretl.heads._targets import check_length

Array = np.ndarray[Any, Any]

KINDS = ("classification", "regression")
# More different whole numbers than these are taken for amounts.
MOST_CLASSES = 20


class Column(NamedTuple):
    """The labels of one task.

    `rows` (k,) are the positions of those that have one, `y` (k,) these labels; `kind` is one of
    `KINDS`, and `why` says in words how that was known.
    """

    kind: str
    why: str
    rows: Array
    y: Array


def table_of(owner: str, y: Any, n: int) -> dict[str, Any]:
    """Return the columns of `y` by name: of a DataFrame, of a dict, or of (n, n_tasks) values.

    Raises
    ------
    InputError
        If there is no such table, or a column is of another length than n.
    """
    if y is None:
        raise InputError(f"{owner} requires y to be passed, but the target y is None.")
    if isinstance(y, Mapping) or hasattr(y, "columns"):
        table = {str(name): y[name] for name in y}
        doubled = len(table) < len(list(y))
    else:
        values = y if isinstance(y, np.ndarray) else _as_objects(y)
        if values.ndim != 2:
            raise InputError(
                f"y of {owner} must have a column for each task, as a DataFrame, a dict of columns "
                f"or (n, n_tasks); got shape {values.shape}: y.reshape(-1, 1) where there is one."
            )
        table, doubled = {str(k): values[:, k] for k in range(values.shape[1])}, False
    if not table or doubled or "" in table:
        raise InputError(
            f"y of {owner} must have at least one column, and no empty name, and none twice."
        )
    for name, column in table.items():
        check_length(n, f"Column {printable(name)!r} of y", len(column))
    return table


def read_column(name: str, column: Any, kind: str | None = None) -> Column:
    """Return the labels of a task, whose kind is recognised where it is not given.

    Raises
    ------
    InputError
        If there is no label, labels are of several kinds, or not of the kind that is given.
    """
    values = np.asarray(column, dtype=object)
    if values.ndim != 1:
        raise InputError(f"Column {printable(name)!r} of y must be one value a row.")
    is_empty = np.array([isinstance(value, str) and not value for value in values], bool)
    rows = np.flatnonzero(~(pd.isna(values) | is_empty))
    kept = [values[i] for i in rows]
    if not kept:
        raise InputError(f"Column {printable(name)!r} of y has no label in any row; leave it out.")
    found, why = _kind_of(name, kept, str(getattr(column, "dtype", "")) == "category")
    if kind not in (None, found):
        why = "as asked"
    return Column(kind or found, why, rows, _labels(name, kept, kind or found))


@contextlib.contextmanager
def in_column(name: str) -> Iterator[None]:
    """Add the column to the errors that are raised within."""
    try:
        yield
    except FeatureTLError as error:
        raise type(error)(f"In column {printable(name)!r} of y: {error}") from error


def _as_objects(y: Any) -> Array:
    """Return nested sequences as they are: numpy would make text of numbers beside text."""
    if hasattr(y, "__array__"):
        return np.asarray(y)
    rows = [row if isinstance(row, (list, tuple)) else [row] for row in y]
    if not rows or len({len(row) for row in rows}) > 1:
        raise InputError("y must have equally many values in every row, one for each task.")
    values = np.empty((len(rows), len(rows[0])), object)
    for i, row in enumerate(rows):
        values[i] = row
    return values


def _kind_of(name: str, values: list[Any], is_category: bool) -> tuple[str, str]:
    if is_category:
        return "classification", "categories"
    for kind, words in ((bool, "True and False"), (np.bool_, "True and False"), (str, "text")):
        if all(isinstance(value, kind) for value in values):
            return "classification", words
    if not all(_is_number(value) for value in values):
        kinds = sorted({type(value).__name__ for value in values})
        raise InputError(
            f"Column {printable(name)!r} of y must hold text, True and False, or numbers; got "
            f"{' and '.join(kinds)}."
        )
    numbers_ = np.array(values, np.float64)
    if (numbers_ != np.round(numbers_)).any():
        return "regression", "numbers with a fraction"
    n = len(np.unique(numbers_))
    if n <= MOST_CLASSES:
        return "classification", f"{n} different whole numbers"
    return "regression", f"{n} different whole numbers, more than {MOST_CLASSES}"


def _labels(name: str, values: list[Any], kind: str) -> Array:
    """Return the labels as an array of their own type; whole numbers that are classes as int."""
    if kind == "regression":
        try:
            return np.array(values, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"Column {printable(name)!r} of y must hold numbers, as its task is regression; "
                f"got {printable(error)}."
            ) from error
    y = np.array(values)
    is_whole = y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all()
    return y.astype(np.int64) if is_whole else y


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
