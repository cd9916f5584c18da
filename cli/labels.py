"""Labels and groups of the images of a command."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import printable
from featuretl.exceptions import InputError

if TYPE_CHECKING:
    from featuretl.images.sources import ImageList

# Text with leading zeros, such as 007, is a name.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")


def labels_of(images: ImageList, numbers: bool, column: Any = None) -> list[Any]:
    """Return the class, tags or regression target of each image; InputError if one has none."""
    if images.tags is not None:
        return _tags_of(images, numbers)
    labels = images.labels or [None] * len(images)
    if None in labels:
        raise InputError(
            f"{labels.count(None):,} of {len(labels):,} images have no label, such as "
            f"{printable(images.paths[labels.index(None)])!r}; label or drop them. Labels come "
            "from class folders or a manifest column."
        )
    if not numbers:
        return labels
    return _numbers(labels, images, column)


def _numbers(labels: list[Any], images: ImageList, column: Any) -> list[float]:
    """Return labels as numbers; InputError unless all are finite."""
    numbers, bad = [], []
    for row, label in enumerate(labels):
        try:
            numbers.append(float(label))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            bad.append(row)
    if bad:
        which = (
            "The column of labels"
            if not isinstance(column, str)
            else f"Column {printable(column)!r}"
        )
        raise InputError(
            f"{which} must hold finite numbers; {len(bad):,} of {len(labels):,} labels are not, "
            f"such as {printable(labels[bad[0]])!r} of {printable(images.paths[bad[0]])!r}."
        )
    return numbers


def typed_table(images: ImageList) -> dict[str, list[Any]]:
    """Return the label columns of several tasks; a column of numbers only becomes floats."""
    return {name: _typed(values) for name, values in (images.tasks or {}).items()}


def truth_of(images: ImageList, numbers: bool, column: Any = None) -> Any:
    """Return the true labels: those of `labels_of`, or for several tasks columns of text."""
    return images.tasks if images.tasks is not None else labels_of(images, numbers, column)


def columns_of_tasks(tasks: Any, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest columns to score a model with `tasks`; None is a model of one task."""
    named = columns["label_column"]
    if tasks is None:
        if isinstance(named, tuple):
            raise click.UsageError("The model has one task; give --label-column once.")
        return columns
    if columns.get("label_separator") or isinstance(named, list):
        raise click.UsageError(
            "The model has several tasks; give --label-column once for each, without commas, and "
            "drop --label-separator."
        )
    scored = (named,) if isinstance(named, str) else named or tuple(tasks)
    return {**columns, "label_column": None, "task_columns": scored}


def _typed(values: list[str | None]) -> list[Any]:
    if not all(value is None or _NUMBER.fullmatch(value) for value in values):
        return values
    return [None if value is None else float(value) for value in values]


def _tags_of(images: ImageList, numbers: bool) -> list[Any]:
    """Return the tags of each image; InputError for regression, or if no image has any."""
    tags = images.tags or []
    if numbers:
        raise InputError("Regression requires one label column, without --label-separator.")
    if not any(tags):
        raise InputError("No image has a label; check --label-column and --label-separator.")
    return tags


def check_classes(y: list[Any], label_column: Any) -> None:
    """Raise InputError for labels of one class, or if one of several columns is 0 for all images.

    Estimators check this too, once they are imported and the images are read.
    """
    if y and isinstance(y[0], str) and len(set(y)) < 2:
        raise InputError(
            f"The labels must have at least 2 classes; all images have {printable(y[0])!r}."
        )
    if isinstance(label_column, list):
        empty = sorted(set(label_column) - {label for labels in y for label in labels})
        if empty:
            raise InputError(f"No image has 1 in column {printable(empty[0])!r}; drop this column.")


def groups_of(images: ImageList) -> Any:
    """Return the group of each image, shape (n,), or None if no column was named."""
    import numpy as np

    if images.groups is None:
        return None
    empty = images.groups.count(None)
    if empty:
        raise InputError(
            f"The column of groups must name a group in every row; {empty:,} of {len(images):,} "
            "rows have none; fill in or drop these rows."
        )
    return np.array(images.groups)
