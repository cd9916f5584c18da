"""Scores of a model on labelled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl._core.statistics import RESAMPLES
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.columns import in_column, read_column, table_of
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.labels import (
    all_labels,
    all_numbers,
    codes_of,
    codes_of_sets,
    is_label_sets,
    one_label_each,
)
from featuretl._learning.metrics import metrics_report
from featuretl.exceptions import InputError
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images
from featuretl.models.fitted import Fitted
from featuretl.prediction.predict import Predictions, Progress, concatenated, in_batches


def evaluate_model(
    model: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    n_bootstrap: int = RESAMPLES,
    confidence: float = 0.95,
    random_state: Any = 0,
    progress: Progress | None = None,
) -> Bunch:
    """Return the scores of a model on labelled images, with confidence intervals.

    Parameters
    ----------
    model : estimator
        Fitted: a pipeline that begins with `ImageEmbedder` or `MediaEmbedder`, or an image
        estimator of featuretl.
    X : sequence of n images
    y : array-like of shape (n,), (n, n_labels) or (n, n_outputs)
        For a classifier, classes, of its type, as text, or as equal numbers; for a multi-label
        model, n lists of labels or an indicator of 0 and 1; for a regressor, numbers. For a
        multi-task model, a DataFrame or dict with a column for each task to score; None, NaN and ""
        are missing labels.
    groups : array-like of shape (n,), default=None
        Images of one group count as one draw in the intervals. The default for crops is their file.
    n_bootstrap, confidence, random_state
        As in `metrics_report`.
    progress : callable, optional
        Called with the number of finished images.

    Returns
    -------
    Bunch
        The Bunch of `metrics_report` over the readable images, and `failures`, the unreadable ones.
        For a multi-task model, `task` is "several", `n` is the number of readable images, and
        `tasks` has such a Bunch for each task, over the images with a label for it.

    Raises
    ------
    InputError
        If lengths differ, `y` has a class or a task that the model does not know, or no image is
        readable.
    """
    owner = "evaluate_model"
    fitted = Fitted.of_images(model, other_media=True)
    images = as_images(X, owner)
    n = len(images)
    groups = read_groups(owner, or_files(groups, images), n)
    options = {"n_bootstrap": n_bootstrap, "confidence": confidence, "random_state": random_state}
    if fitted.tasks is None:
        truth = {"": (np.arange(n), known_labels(fitted, y, owner, n))}
    else:
        truth = known_tasks(fitted, y, n, owner)
    parts = list(in_batches(fitted, images, progress))
    failures = [failure for part in parts for failure in part.failures]
    if not any(part.ok.any() for part in parts):
        raise InputError(f"None of {n} images could be read; check their paths.")
    if fitted.tasks is None:
        report = _scores(fitted, *truth[""], groups, parts, options)
        report.failures = failures
        return report
    reports = {}
    for name, (rows, labels) in truth.items():
        of_task = [part.of_task(name) for part in parts]
        with in_column(name):
            reports[name] = _scores(fitted.tasks[name], rows, labels, groups, of_task, options)
    readable = sum(int(part.ok.sum()) for part in parts)
    return Bunch(task="several", n=readable, tasks=reports, failures=failures)


def known_tasks(model: Any, y: Any, n: int, owner: str) -> dict[str, tuple[Array, Array]]:
    """Return for each task in `y` the rows with a label, and these labels as `known_labels`."""
    tasks = Fitted.of(model).tasks or {}
    table = table_of(owner, y, n)
    unknown = [name for name in table if name not in tasks]
    if unknown:
        raise InputError(
            f"y has a column {printable(unknown[0])!r}, which is not a task of the model; remove "
            f"it or rename it to one of: {printable(', '.join(tasks))}."
        )
    known = {}
    for name, values in table.items():
        is_class = tasks[name].classes is not None
        column = read_column(name, values, "classification" if is_class else "regression")
        with in_column(name):
            known[name] = column.rows, known_labels(tasks[name], column.y, owner)
    return known


def known_labels(model: Any, y: Any, owner: str, n: int | None = None) -> Array:
    """Return `y`, n labels, as classes of the model, see `codes_of`; as numbers for regression."""
    fitted = Fitted.of(model)
    labels = (all_numbers if fitted.kind == "regression" else all_labels)(owner, y)
    if n is not None and len(labels) != n:
        raise InputError(f"y must have one entry per image; got {len(labels)} for {n}.")
    if fitted.kind == "regression":
        return labels
    classes = fitted.classes
    if fitted.kind == "classification":
        if is_label_sets(labels):
            raise InputError(
                "The model predicts one class per image, but y has several labels per image; pass "
                "one label per image."
            )
        return classes[codes_of(owner, one_label_each(owner, labels), classes)]
    if is_label_sets(labels):
        return codes_of_sets(owner, labels, classes).astype(int)
    if labels.shape != (len(labels), len(classes)) or not np.isin(labels, (0, 1)).all():
        raise InputError(
            "The model is multi-label: y must be a list of labels per image, or an indicator of 0 "
            f"and 1 of shape (n, {len(classes)}); got {type(y).__name__} of shape {labels.shape}."
        )
    return labels.astype(int)


def _scores(
    fitted: Fitted, rows: Array, y: Array, groups: Array | None, parts: list[Predictions],
    options: dict[str, Any],
) -> Bunch:  # fmt: skip
    """Return the scores of predictions on the readable images of `rows`, which have labels `y`."""
    ok = np.concatenate([part.ok for part in parts])
    readable = ok[rows]
    if not readable.any():
        raise InputError("no image with a label could be read; check their paths.")
    place = (np.cumsum(ok) - 1)[rows[readable]]
    predicted, proba = concatenated(parts)
    return metrics_report(
        y[readable],
        predicted[place],
        subset(proba, place),
        task=fitted.kind,
        labels=fitted.classes,
        groups=subset(groups, rows[readable]),
        **options,
    )
