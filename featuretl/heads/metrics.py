"""One call for the scores of predictions, each with a bootstrap confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    hamming_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_fscore_support,
    r2_score,
    root_mean_squared_error,
)
from sklearn.utils import Bunch, check_random_state

from featuretl._labels import all_labels, all_numbers, codes_of, one_label_each
from featuretl._validation import check_int, check_option
from featuretl.exceptions import InputError
from featuretl.heads._calibration import expected_calibration_error

Array = np.ndarray[Any, Any]
Score = Callable[[Array, Array, Any], float]

_OWNER = "metrics_report"
_TASKS = ("classification", "multilabel", "regression")


def metrics_report(
    y: Any,
    y_pred: Any,
    y_score: Any = None,
    *,
    task: str = "auto",
    labels: Any = None,
    n_bootstrap: int = 200,
    confidence: float = 0.95,
    random_state: Any = 0,
) -> Bunch:
    """Return the scores of predictions, with bootstrap confidence intervals.

    Parameters
    ----------
    y : array-like of shape (n,), (n, n_labels) or (n, n_outputs)
        The truth: classes, a 0/1 indicator, or numbers.
    y_pred : array-like of the shape of `y`
        What was predicted.
    y_score : array-like of shape (n, n_classes), (n,) or (n, n_labels), default=None
        Probabilities, in the order of `labels`; (n,) is that of the second of two classes.
        Without them there is no log-loss, ROC AUC, average precision or calibration error.
    task : {"auto", "classification", "multilabel", "regression"}, default="auto"
        "auto": numbers with a fraction are regression, two-dimensional 0/1 is multi-label, the
        rest classification. Say it where numbers happen to be whole.
    labels : array-like of shape (n_classes,), default=None
        All classes, as in `classes_` of the estimator; the sorted values of `y` and `y_pred`
        where absent.
    n_bootstrap : int >= 0, default=200
        Resamples of the rows; 0 gives no intervals.
    confidence : float in (0, 1), default=0.95
        Share of the resamples that an interval covers.
    random_state : int, RandomState or None, default=0
        Draws the resamples.

    Returns
    -------
    Bunch
        - `scores` : dict of float. Classification: accuracy, balanced_accuracy, precision, recall
          and f1 (each _macro and _weighted), log_loss, roc_auc (one-vs-rest, macro),
          calibration_error. Multi-label: subset_accuracy, hamming_loss, precision, recall and f1
          (_macro, _micro and _weighted), log_loss (mean over labels), roc_auc and
          average_precision (macro, over labels that occur), calibration_error. Regression: r2,
          mean_absolute_error, mean_squared_error, root_mean_squared_error.
        - `intervals` : dict of (low, high), percentiles over the resamples that have the score.
        - `per_class` : dict of class to precision, recall, f1 and support; not for regression.
        - `task` and `n`.

    Raises
    ------
    InputError
        If lengths differ, `y_score` has other columns than classes, or `y` holds a class that
        `labels` lacks.

    Examples
    --------
    >>> from featuretl.heads.metrics import metrics_report
    >>> report = metrics_report([0, 1, 1, 1], [0, 1, 0, 1], [[0.9, 0.1]] + [[0.4, 0.6]] * 3)
    >>> report.scores["accuracy"], round(report.scores["log_loss"], 3)
    (0.75, 0.409)
    >>> report.per_class[1]["recall"]
    0.6666666666666666
    """
    check_option(_OWNER, "task", task, ("auto", *_TASKS))
    check_int(_OWNER, "n_bootstrap", n_bootstrap, 0)
    y, y_pred, task, classes = _read(y, y_pred, task, labels)
    if classes is not None:
        y_score = _checked_score(task, y, y_score, classes)
    score = _scorer(task, classes)
    scores = score(y, y_pred, y_score)
    rows = check_random_state(random_state).randint(len(y), size=(n_bootstrap, len(y)))
    resampled = [score(y[r], y_pred[r], None if y_score is None else y_score[r]) for r in rows]
    return Bunch(
        scores=scores,
        intervals=_intervals(scores, resampled, confidence),
        per_class={} if classes is None else _per_class(y, y_pred, classes),
        task=task,
        n=len(y),
    )


def _read(y: Any, y_pred: Any, task: str, labels: Any) -> tuple[Array, Array, str, Array | None]:
    """Return truth and predictions as numbers, the task, and its classes; codes stand for classes."""
    read = all_numbers if task == "regression" else all_labels
    y, y_pred = read(_OWNER, y), read(_OWNER, y_pred, "y_pred")
    if y.ndim != y_pred.ndim and y.size == y_pred.size:  # one of them is a column
        y, y_pred = y.ravel(), y_pred.ravel()
    if y.shape != y_pred.shape or not len(y):
        raise InputError(
            f"y and y_pred must have the same shape and rows; got {y.shape} and {y_pred.shape}."
        )
    task = _task_of(y) if task == "auto" else task
    if task == "regression":
        return y, y_pred, task, None
    if task == "multilabel":
        if y.ndim != 2 or not (np.isin(y, (0, 1)).all() and np.isin(y_pred, (0, 1)).all()):
            raise InputError("Multi-label y and y_pred must hold 0 and 1, (n, n_labels).")
        names = np.arange(y.shape[1]) if labels is None else all_labels(_OWNER, labels, "labels")
        return y.astype(int), y_pred.astype(int), task, names
    classes = classes_of(_OWNER, y, y_pred, labels)
    y = codes_of(_OWNER, y, classes, unknown="labels lacks")
    y_pred = codes_of(_OWNER, y_pred, classes, "y_pred", "labels lacks")
    return y, y_pred, task, classes


def _task_of(y: Array) -> str:
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        return "regression"
    if y.ndim == 2:
        return "multilabel" if np.isin(y, (0, 1)).all() else "regression"
    return "classification"


def classes_of(owner: str, y: Array, y_pred: Array, labels: Any) -> Array:
    """Return the classes that are scored: `labels`, or those of `y` and `y_pred`, (n,) each."""
    if labels is not None:
        return one_label_each(owner, labels, "labels")
    y, y_pred = one_label_each(owner, y), one_label_each(owner, y_pred, "y_pred")
    if len({labels.dtype.kind in "OU" for labels in (y, y_pred)}) > 1:
        raise InputError(
            f"y and y_pred of {owner} must be of one type; got {y.dtype} and {y_pred.dtype}: pass "
            "labels=estimator.classes_."
        )
    return np.unique(np.concatenate([y, y_pred]))


def _checked_score(task: str, y: Array, y_score: Any, classes: Array) -> Array | None:
    if y_score is None:
        return None
    score = np.asarray(y_score, np.float64)
    if task == "classification" and score.ndim == 1 and len(classes) == 2:
        score = np.column_stack([1 - score, score])
    if score.shape != (len(y), len(classes)):
        raise InputError(
            f"y_score must have a row per row of y and a column per class, "
            f"{(len(y), len(classes))}; got {score.shape}: pass labels=estimator.classes_ if y "
            "lacks some class."
        )
    if not ((score >= 0) & (score <= 1)).all():
        raise InputError("y_score must hold probabilities, in [0, 1]; got values outside.")
    return score


def _scorer(task: str, classes: Array | None) -> Callable[[Array, Array, Any], dict[str, float]]:
    if classes is None:
        return _regression
    return partial(_multilabel if task == "multilabel" else _classification, classes)


def _regression(y: Array, y_pred: Array, y_score: Any) -> dict[str, float]:
    names = {
        "r2": r2_score,
        "mean_absolute_error": mean_absolute_error,
        "mean_squared_error": mean_squared_error,
        "root_mean_squared_error": root_mean_squared_error,
    }
    return {name: float(metric(y, y_pred)) for name, metric in names.items()}


def _classification(
    classes: Array, y: Array, y_pred: Array, proba: Array | None
) -> dict[str, float]:
    present = np.unique(np.concatenate([y, y_pred]))
    averages, recall, support = _averages(y, y_pred, present)
    # balanced_accuracy_score is this, with a warning for predicted classes that `y` lacks.
    balanced = recall[support > 0].mean()
    scores = {"accuracy": accuracy_score(y, y_pred), "balanced_accuracy": balanced, **averages}
    if proba is not None:
        scores["log_loss"] = log_loss(y, proba, labels=np.arange(len(classes)))
        scores["roc_auc"] = _roc_auc(_one_hot(y, proba), proba)
        scores["calibration_error"] = expected_calibration_error(y, proba)
    return {name: float(value) for name, value in scores.items()}


def _multilabel(classes: Array, y: Array, y_pred: Array, proba: Array | None) -> dict[str, float]:
    scores = {"subset_accuracy": accuracy_score(y, y_pred), "hamming_loss": hamming_loss(y, y_pred)}
    scores |= _averages(y, y_pred, np.arange(y.shape[1]))[0]
    micro = precision_recall_fscore_support(y, y_pred, average="micro", zero_division=0)
    scores |= dict(zip(("precision_micro", "recall_micro", "f1_micro"), micro, strict=False))
    if proba is not None:
        clipped = np.clip(proba, 1e-15, 1 - 1e-15)
        likelihood = np.where(y == 1, clipped, 1 - clipped)
        scores["log_loss"] = -np.log(likelihood).mean()
        scores["roc_auc"] = _roc_auc(y, proba)
        usable = _of_both(y)
        scores["average_precision"] = np.nan
        if usable.any():
            scores["average_precision"] = average_precision_score(y[:, usable], proba[:, usable])
        scores["calibration_error"] = expected_calibration_error(y, proba)
    return {name: float(value) for name, value in scores.items()}


def _averages(y: Array, y_pred: Array, labels: Array) -> tuple[dict[str, float], Array, Array]:
    """Return macro and weighted averages of precision, recall and F1; each recall and support."""
    *columns, support = precision_recall_fscore_support(y, y_pred, labels=labels, zero_division=0)
    scores = {}
    for name, column in zip(("precision", "recall", "f1"), columns, strict=True):
        scores[f"{name}_macro"] = column.mean()
        scores[f"{name}_weighted"] = column @ support / max(support.sum(), 1)
    return scores, columns[1], support


def _roc_auc(y: Array, score: Array) -> float:
    """Return the mean area under the ROC curves of the columns that have one; NaN without any.

    That of a column is the share of pairs of a 1 and a 0 that are in the right order (Hanley and
    McNeil 1982, doi:10.1148/radiology.143.1.7063747), counted by ranks for all columns at once:
    `roc_auc_score` goes through them one by one, which took most of the resamples' time.
    """
    usable = _of_both(y)
    if not usable.any():
        return np.nan
    y = y[:, usable]
    ranks = rankdata(score[:, usable], axis=0)
    n_ones = y.sum(axis=0)
    pairs = n_ones * (len(y) - n_ones)
    return float((((ranks * y).sum(axis=0) - n_ones * (n_ones + 1) / 2) / pairs).mean())


def _of_both(y: Array) -> Array:
    """Return which columns of `y` (n, k) hold both 0 and 1."""
    both: Array = (y.min(axis=0) == 0) & (y.max(axis=0) == 1)
    return both


def _one_hot(codes: Array, proba: Array) -> Array:
    return (codes[:, None] == np.arange(proba.shape[1])).astype(int)


def _intervals(
    scores: dict[str, float], resampled: list[dict[str, float]], confidence: float
) -> dict[str, tuple[float, float]]:
    if not resampled:
        return {}
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    intervals = {}
    for name in scores:
        values = np.array([row[name] for row in resampled])
        values = values[~np.isnan(values)]
        low, high = np.percentile(values, tails) if len(values) else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals


def _per_class(y: Array, y_pred: Array, classes: Array) -> dict[Any, dict[str, float]]:
    labels = np.arange(len(classes))
    columns = precision_recall_fscore_support(y, y_pred, labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        name: {key: column[i].item() for key, column in zip(names, columns, strict=True)}
        for i, name in enumerate(classes.tolist())
    }
