"""Reading labels from any container: types, missing labels, and codes of a model's classes."""

from __future__ import annotations

import decimal
import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, compress
from typing import Any, NamedTuple

import numpy as np

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.arrays import to_numpy
from featuretl.exceptions import InputError

_SETS = (set, frozenset)
_SEVERAL = (list, tuple, *_SETS)
_NUMBERS = (numbers.Real, decimal.Decimal)
_FAMILIES = {"O": "text", "U": "text", "M": "dates", "m": "durations"}
_TO_PLAIN = ("tolist", "to_list", "as_py")
# Item sizes of the text arrays that NumPy makes of text mixed with ints, and with floats (NaN).
_WIDTHS_OF_NUMBERS = [np.array(["", number]).dtype.itemsize for number in (1, 1.0)]
# Text of a whole number: "1" and "1.0" are equal, "007" is a name.
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")


class Labels(NamedTuple):
    """Labels (k,), an indicator (k, n_labels) or frozensets (k,), of the `known` of n rows."""

    values: Array
    known: Array


def is_gap(value: Any) -> bool:
    """Return whether `value` is a missing label: None, NaN, NaT, pandas.NA or empty text."""
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return True
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    try:
        return bool(value != value)  # NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return False


def label_text(value: Any) -> str | None:
    """Return the class name of a label read from a file; None for a missing label.

    Numbers and bools become text as in pandas' CSV files, so that all formats give equal classes.
    """
    if is_gap(value):
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def some_labels(owner: str, y: Any, name: str = "y", *, minus_one: bool = False) -> Labels:
    """Return the labels of the rows that have one; with `minus_one`, the number -1 is missing, too.

    `y` is a list, array or sparse matrix, or a column or frame of pandas, polars or pyarrow. Raises
    InputError, which names `owner` and `name`, if `y` is none, or mixes text, bools and numbers.
    """
    if y is None:
        raise InputError(f"{owner} requires {name} to be passed, but the target {name} is None.")
    what = f"{name} of {owner}"
    if hasattr(y, "toarray"):  # sparse
        y = y.toarray()
    columns = None if isinstance(y, Mapping) else columns_of(y)
    if columns is not None:
        return _side_by_side(what, [_one_column(what, v, minus_one) for v in columns.values()])
    return _one_column(what, y, minus_one)


def all_labels(owner: str, y: Any, name: str = "y", *, instead: str = "") -> Array:
    """Return `some_labels` of all rows; the error for gaps ends with the remedy `instead`."""
    values, known = some_labels(owner, y, name)
    if not known.all():
        gaps = np.flatnonzero(~known)
        raise InputError(
            f"{name} of {owner} has no label in {len(gaps):,} of {len(known):,} rows, such as row "
            f"{gaps[0]:,}: drop these rows{instead}."
        )
    if values.dtype.kind == "f" and np.isinf(values).any():
        infinite = int(_in_row(np.isinf(values)).sum())
        raise InputError(
            f"{name} of {owner} is infinite in {infinite:,} of {len(values):,} rows: drop these "
            "rows."
        )
    return values


def one_label_each(owner: str, y: Any, name: str = "y") -> Array:
    """Return the labels of all rows, (n,); raises InputError for multi-label `y`."""
    labels = all_labels(owner, y, name)
    if is_label_sets(labels) or labels.size != len(labels):
        got = "lists of labels" if is_label_sets(labels) else f"shape {labels.shape}"
        raise InputError(f"{name} of {owner} must hold one label for each row; got {got}.")
    return labels.ravel()


def all_numbers(owner: str, y: Any, name: str = "y") -> Array:
    """Return finite regression targets, (n,) or (n, n_outputs), float64; InputError for others."""
    values, known = some_labels(owner, y, name)
    if values.dtype.kind not in "buifOU" or values.ndim > 2:
        got = f"{values.dtype} of shape {values.shape}"
        raise InputError(f"{name} of {owner} must hold numbers, (n,) or (n, n_outputs); got {got}.")
    try:
        targets: Array = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} of {owner} must hold numbers; got {error}.") from error
    missing = int((~known).sum() + _in_row(np.isnan(targets)).sum())
    infinite = int(_in_row(np.isinf(targets)).sum())
    if missing or infinite:
        counts = {"none": missing, "an infinite one": infinite}
        parts = [f"{words} in {count:,}" for words, count in counts.items() if count]
        raise InputError(
            f"{name} of {owner} must hold a finite number in every row; got {' and '.join(parts)} "
            f"of {len(known):,} rows: drop these rows."
        )
    return targets


def is_label_sets(values: Array) -> bool:
    """Return whether the labels `values` (k,) of `some_labels` are frozensets."""
    return values.dtype == object and isinstance(next(iter(values), 0), frozenset)


def columns_of(y: Any) -> dict[str, Any] | None:
    """Return the columns of a dict or a pandas, polars or pyarrow frame by name, or None."""
    if not isinstance(y, Mapping) and not hasattr(y, "columns"):
        return None
    # In pyarrow, `columns` holds the arrays.
    names = y.column_names if hasattr(y, "column_names") else getattr(y, "columns", y)
    if len({str(name) for name in names}) < len(names):
        raise InputError("y must not have two columns of the same name.")
    return {str(name): y[name] for name in names}


def codes_of(
    owner: str,
    labels: Array,
    classes: Array,
    name: str = "y",
    unknown: str = "the model does not know",
) -> Array:
    """Return the position in `classes` of each of `labels` (n,), int.

    A label matches the class of equal value (1 == 1.0), else of equal text, else of equal `_keys`.
    Raises InputError for other labels; `unknown` ends "holds classes that ..".
    """
    readings = []
    for keys in zip(*map(_keys, classes.tolist()), strict=True):
        count = Counter(keys)
        readings.append({key: code for code, key in enumerate(keys) if count[key] == 1})
    found, position = np.unique(labels, return_inverse=True)
    codes = [
        next((by[key] for by, key in zip(readings, _keys(label), strict=True) if key in by), None)
        for label in found.tolist()
    ]
    lost = [label for label, code in zip(found.tolist(), codes, strict=True) if code is None]
    if lost:
        known = printable(", ".join(map(str, classes.tolist()[:20])))
        raise InputError(
            f"{name} of {owner} holds {len(lost)} classes that {unknown}, such as "
            f"{printable(repr(lost[0]))}; it knows {known}."
        )
    return np.array(codes, int)[position]


def codes_of_sets(owner: str, sets: Array, classes: Array, **options: Any) -> Array:
    """Return the 0/1 indicator (n, n_classes), uint8, of sets of labels (n,)."""
    flat = _typed(f"y of {owner}", list(chain.from_iterable(sets)))
    codes: Array = np.zeros((len(sets), len(classes)), np.uint8)
    rows = np.repeat(np.arange(len(sets)), [len(labels) for labels in sets])
    codes[rows, codes_of(owner, flat, classes, **options)] = 1
    return codes


def _keys(label: Any) -> tuple[Any, Any, Any]:
    """Return a label, its text, and the normalized text of whole numbers and bools ("1.0": "1")."""
    text = str(label)
    whole = _WHOLE.fullmatch(text)
    truth = text.lower() if text.lower() in ("true", "false") else text
    return label, text, whole[1] if whole else truth


def _one_column(what: str, y: Any, minus_one: bool) -> Labels:
    if isinstance(y, np.ma.MaskedArray):
        present = ~_in_row(np.ma.getmaskarray(y))
        values = np.asarray(y)[present]
    elif hasattr(y, "isna"):  # pandas
        present = ~np.asarray(y.isna(), bool)
        values = np.asarray(y[present])
    elif hasattr(y, "is_null") and hasattr(y, "null_count"):  # polars and pyarrow
        present = ~np.asarray(y.is_null(), bool)
        values = np.asarray(y.drop_nulls() if hasattr(y, "drop_nulls") else y.drop_null())
    elif hasattr(y, "__array__"):
        values = np.asarray(to_numpy(y))
        present = np.ones(len(values) if values.ndim else 0, bool)
    elif isinstance(y, Iterable) and not isinstance(y, (str, bytes, Mapping, *_SETS)):
        return _of_objects(what, list(y), minus_one)  # NumPy would turn numbers among text to text
    else:
        raise InputError(f"{what} must hold a label for each row; got {type(y).__name__}.")
    found = _of_array(what, values, minus_one)
    present[present] = found.known
    return Labels(found.values, present)


def _of_array(what: str, y: Array, minus_one: bool) -> Labels:
    if not y.ndim:
        raise InputError(f"{what} must hold a label for each row; got {y.item()!r}.")
    kind = y.dtype.kind
    if kind in "OTS":
        if y.ndim == 2:
            return _side_by_side(what, [_of_array(what, column, minus_one) for column in y.T])
        values, known = _of_objects(what, y.tolist(), minus_one)
        # Text keeps the dtype object, as in the `classes_` of scikit-learn's estimators.
        return Labels(values.astype(object) if values.dtype.kind == "U" else values, known)
    if kind not in "biufmMU":
        raise InputError(f"{what} must hold text, True and False, or numbers; got {y.dtype}.")
    gaps = y == "" if kind == "U" else y != y  # NaN and NaT differ from themselves
    if kind == "U" and y.dtype.itemsize in _WIDTHS_OF_NUMBERS:
        gaps |= y == "nan"
        if minus_one and np.strings.isalpha(y).any():
            gaps |= np.isin(y, ("-1", "-1.0"))
    if minus_one and kind in "if":
        gaps |= y == -1
    known = ~_in_row(gaps)
    return Labels(y if known.all() else y[known], known)


def _side_by_side(what: str, columns: list[Labels]) -> Labels:
    """Return the columns as one matrix (k, n_columns) of the rows that have a label in each."""
    if not columns:
        raise InputError(f"{what} must have at least one column.")
    known = np.logical_and.reduce([column.known for column in columns])
    parts = [column.values[known[column.known]] for column in columns]
    families = sorted({_FAMILIES.get(part.dtype.kind, "numbers") for part in parts})
    if len(families) > 1:
        got = " and ".join(families)
        raise InputError(f"{what} must hold one kind of label; got columns of {got}.")
    return Labels(np.column_stack(parts), known)


def _of_objects(what: str, rows: list[Any], minus_one: bool) -> Labels:
    if any(hasattr(kind, name) for kind in set(map(type, rows)) for name in _TO_PLAIN):
        rows = [_plain(row) for row in rows]
    if any(issubclass(kind, _SEVERAL) for kind in set(map(type, rows))):
        return _of_nested(what, rows, minus_one)
    known = np.array([not _is_gap(row, minus_one) for row in rows], bool)
    return Labels(_typed(what, list(compress(rows, known))), known)


def _of_nested(what: str, rows: list[Any], minus_one: bool) -> Labels:
    """Return a matrix for rows of equally many numbers, sets of labels for others."""
    lists = [list(map(_plain, row)) if isinstance(row, _SEVERAL) else [row] for row in rows]
    known = np.array([not any(_is_gap(v, minus_one) for v in row) for row in lists], bool)
    kept = list(compress(rows, known))
    if not all(isinstance(row, _SEVERAL) for row in kept):
        raise InputError(f"{what} must hold a label for each row, or a list of labels for each.")
    lists = list(compress(lists, known))
    flat = _typed(what, list(chain.from_iterable(lists)))
    is_matrix = len(flat) and flat.dtype.kind != "U" and len({len(row) for row in lists}) == 1
    if is_matrix and not any(isinstance(row, _SETS) for row in kept):
        return Labels(flat.reshape(len(lists), -1), known)
    values = np.empty(len(lists), object)
    values[:] = [frozenset(row) for row in lists]
    return Labels(values, known)


def _typed(what: str, values: list[Any]) -> Array:
    """Return labels without gaps as an array of their own type."""
    kinds = set(map(type, values))
    if all(issubclass(kind, str) for kind in kinds):
        return np.array(values, str)
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return np.array(values, bool)
    if any(issubclass(k, (bool, np.bool_)) or not issubclass(k, _NUMBERS) for k in kinds):
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(
            f"{what} must hold text, or True and False, or numbers, in all rows; got {names}."
        )
    is_whole = all(issubclass(kind, numbers.Integral) for kind in kinds)
    try:
        typed = np.array(values if is_whole else [float(value) for value in values])
    except OverflowError:
        typed = np.array(values, object)
    if typed.dtype.kind not in ("iu" if is_whole else "f"):
        raise InputError(f"{what} must hold numbers of at most 64 bits; got larger ones.")
    return typed


def _in_row(mask: Array) -> Array:
    """Return for each row (n,) whether any element of `mask` (n, ..) in it is true."""
    return np.asarray(mask.any(axis=tuple(range(1, mask.ndim))))


def _is_gap(value: Any, minus_one: bool) -> bool:
    return is_gap(value) or (minus_one and isinstance(value, _NUMBERS) and value == -1)


def _plain(value: Any) -> Any:
    """Return scalars and sequences of NumPy, torch, pandas, polars and pyarrow as Python's."""
    method = next((name for name in _TO_PLAIN if hasattr(value, name)), None)
    return getattr(value, method)() if method else value
