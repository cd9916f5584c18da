"""metrics_report: the scores of predictions, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.utils import Bunch

from featuretl._core.display import Display
from featuretl._core.parameters import check_int, check_option, random_generator
from featuretl._core.statistics import RESAMPLES
from featuretl._core.types import Array
from featuretl._learning.calibration import expected_calibration_error
from featuretl._learning.groups import read_groups
from featuretl._learning.intervals import Intervals, intervals_of, losses_of
from featuretl._learning.labels import all_labels, all_numbers, codes_of, one_label_each
from featuretl.exceptions import InputError

_OWNER = "metrics_report"
_TASKS = ("auto", "classification", "multilabel", "regression")


class MetricsReport(Display, Bunch):
    """Scores with their intervals; the result of `metrics_report` and `evaluate_model`."""

    def _facts(self) -> dict[str, Any]:
        facts = {"images": f"{self.n:,}", "task": self.task}
        for name, score in self.scores.items():
            low, high = self.intervals.get(name, (np.nan, np.nan))
            facts[name] = f"{score:.3f}" + f" ({low:.3f} to {high:.3f})" * bool(low <= high)
        return facts


def metrics_report(
    y: Any,
    y_pred: Any,
    y_score: Any = None,
    *,
    task: str = "auto",
    labels: Any = None,
    groups: Any = None,
    n_bootstrap: int = RESAMPLES,
    confidence: float = 0.95,
    random_state: Any = 0,
) -> MetricsReport:
    """Return the scores of predictions, with confidence intervals.

    Parameters
    ----------
    y : array-like of shape (n,), (n, n_labels) or (n, n_outputs)
        True classes, a 0/1 indicator, or regression targets.
    y_pred : array-like of the shape of `y`, or of shape (n, n_classes)
        Predictions; or probabilities, as `y_score`, whose most probable class is the prediction.
    y_score : array-like of shape (n, n_classes), (n,) or (n, n_labels), default=None
        Probabilities, in the order of `labels`; (n,) is that of the second of two classes. The
        log-loss, ROC AUC, average precision and calibration error need them.
    task : {"auto", "classification", "multilabel", "regression"}, default="auto"
        "auto": numbers with a fraction are regression, two-dimensional 0/1 is multi-label, all
        else is classification. Pass "regression" for whole numbers.
    labels : array-like of shape (n_classes,), default=None
        All classes, as in `classes_` of the estimator; None: the sorted values of `y` and `y_pred`.
    groups : array-like of shape (n,), default=None
        Rows of one group (a patient, a signer) count as one draw in the intervals.
    n_bootstrap : int >= 0, default=1000
        Resamples for the intervals of the log-loss and of regression scores; 0: no intervals.
    confidence : float in (0, 1), default=0.95
        Confidence level of the intervals.
    random_state : int, RandomState or None, default=0
        Seed of the resamples.

    Returns
    -------
    Bunch
        - `scores` : dict of float. Classification: accuracy, balanced_accuracy, precision, recall
          and f1 (each _macro and _weighted), log_loss, roc_auc (one-vs-rest, macro),
          calibration_error. Multi-label: subset_accuracy, hamming_loss, precision, recall and f1
          (_macro, _micro and _weighted), log_loss (mean over labels), roc_auc and
          average_precision (macro, over labels that occur), calibration_error. Regression: r2,
          mean_absolute_error, mean_squared_error, root_mean_squared_error.
        - `intervals` : dict of (low, high); see Notes. It is [0, inf), or (-inf, 1] for R2, if a
          few rows determine an error, or fewer than five mistakes a log-loss. The calibration error
          has none: its estimate is biased upwards by more than its standard error.
        - `per_class` : dict of class to precision, recall, f1 and support; not for regression.
        - `task` and `n`.

    Raises
    ------
    InputError
        If lengths differ, `y_score` does not have one column per class, or `y` holds a class that
        is not in `labels`.

    Notes
    -----
    Proportions (accuracy, subset accuracy, Hamming loss, micro averages) have the exact binomial
    interval at the effective number of rows (Korn and Graubard 1998). Macro and weighted averages,
    ROC AUC and average precision have the same interval with the jackknife's standard error. The
    log-loss and regression scores have bootstrap-t intervals of the logarithm of the error.
    `benchmarks/intervals.py` measures their coverage.

    References
    ----------
    Korn and Graubard, Confidence Intervals for Proportions with Small Expected Number of Positive
    Counts Estimated from Survey Data, Survey Methodology 24, 1998.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

    Examples
    --------
    >>> from featuretl._learning.metrics import metrics_report
    >>> report = metrics_report([0, 1, 1, 1], [0, 1, 0, 1], [[0.9, 0.1]] + [[0.4, 0.6]] * 3)
    >>> report.scores["accuracy"], round(report.scores["log_loss"], 3)
    (0.75, 0.409)
    >>> report.per_class[1]["recall"]
    0.6666666666666666
    """
    check_option(_OWNER, "task", task, _TASKS)
    check_int(_OWNER, "n_bootstrap", n_bootstrap, 0)
    if y_score is None and task in ("auto", "classification") and _is_proba(y, y_pred):
        labels = np.unique(one_label_each(_OWNER, y)) if labels is None else labels
        y_pred, y_score = _most_probable(np.asarray(y_pred), np.asarray(labels)), y_pred
    y, y_pred, task, classes = _read(y, y_pred, task, labels)
    score: Callable[[Array, Array, Any], dict[str, float]] = _regression
    if classes is not None:
        y_score = _checked_score(task, y, y_score, classes)
        score = partial(_classification, len(classes))
    scores = score(y, y_pred, y_score)
    intervals: Intervals = {}
    if n_bootstrap:
        codes = read_groups(_OWNER, groups, len(y))
        numbers = np.arange(len(y)) if codes is None else codes
        seed = random_generator(_OWNER, random_state).randint(2**31)
        intervals = intervals_of(
            task, (y, y_pred, y_score), score, numbers, confidence, n_bootstrap, seed
        )
    return MetricsReport(
        scores=scores,
        intervals=intervals,
        per_class={} if classes is None else _per_class(y, y_pred, classes),
        task=task,
        n=len(y),
    )


def _is_proba(y: Any, y_pred: Any) -> bool:
    try:
        y, y_pred = np.asarray(y), np.asarray(y_pred)
    except ValueError:  # ragged
        return False
    return bool(
        y.ndim == 1 and y_pred.ndim == 2 and y_pred.shape[1] > 1 and y_pred.dtype.kind == "f"
    )


def _most_probable(proba: Array, labels: Array) -> Array:
    if proba.shape[1] != len(labels):
        raise InputError(
            f"Probabilities have a column per class; got {proba.shape[1]} columns and "
            f"{len(labels)} classes: pass labels=estimator.classes_."
        )
    return labels[proba.argmax(axis=1)]


def _read(y: Any, y_pred: Any, task: str, labels: Any) -> tuple[Array, Array, str, Array | None]:
    """Return y and y_pred as class codes, indicators or targets, the task, and its classes."""
    read = all_numbers if task == "regression" else all_labels
    y, y_pred = read(_OWNER, y), read(_OWNER, y_pred, "y_pred")
    if y.ndim != y_pred.ndim and y.size == y_pred.size:  # one has the shape (n, 1)
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
    """Return the classes to score: `labels`, or the sorted values of `y` and `y_pred` (n,)."""
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
            "does not hold every class."
        )
    if not ((score >= 0) & (score <= 1)).all():
        raise InputError("y_score must hold probabilities, in [0, 1]; got values outside.")
    return score


def _regression(y: Array, y_pred: Array, y_score: Any) -> dict[str, float]:
    metrics = (r2_score, mean_absolute_error, mean_squared_error, root_mean_squared_error)
    return {of.__name__.removesuffix("_score"): float(of(y, y_pred)) for of in metrics}


def _classification(n: int, y: Array, y_pred: Array, proba: Array | None) -> dict[str, float]:
    """Return the scores of codes of n classes (rows,), or of indicators of n labels (rows, n)."""
    hits, true, predicted = counts = _counts(y, y_pred, n)
    if y.ndim == 1:
        scores = {
            "accuracy": (y == y_pred).mean(),
            "balanced_accuracy": (hits[true > 0] / true[true > 0]).mean(),
            **_averages(*(count[true + predicted > 0] for count in counts)),
        }
    else:
        micro = _precision_recall_f1(*(count.sum() for count in counts))
        scores = {
            "subset_accuracy": (y == y_pred).all(axis=1).mean(),
            "hamming_loss": (y != y_pred).mean(),
            **_averages(*counts),
            **{f"{name}_micro": value for name, value in micro.items()},
        }
    if proba is not None:
        indicator = np.eye(n, dtype=int)[y] if y.ndim == 1 else y
        usable = (indicator.min(axis=0) == 0) & (indicator.max(axis=0) == 1)
        indicator, score = indicator[:, usable], proba[:, usable]
        scores["log_loss"] = losses_of(y, proba).mean()
        scores["roc_auc"] = _roc_auc(indicator, score) if usable.any() else np.nan
        if y.ndim == 2:
            average = average_precision_score(indicator, score) if usable.any() else np.nan
            scores["average_precision"] = average
        scores["calibration_error"] = expected_calibration_error(y, proba)
    return {name: float(value) for name, value in scores.items()}


def _counts(y: Array, y_pred: Array, n: int) -> tuple[Array, Array, Array]:
    """Return the true positives, true and predicted rows of each of n classes, (n,) each."""
    if y.ndim == 2:
        return (y * y_pred).sum(axis=0), y.sum(axis=0), y_pred.sum(axis=0)
    hits, true, predicted = (
        np.bincount(codes, minlength=n) for codes in (y[y == y_pred], y, y_pred)
    )
    return hits, true, predicted


def _precision_recall_f1(hits: Any, true: Any, predicted: Any) -> dict[str, Any]:
    """Return the scores of counts from `_counts`; 0 for a denominator of 0."""
    counts = {"precision": predicted, "recall": true, "f1": (true + predicted) / 2}
    return {name: hits / np.where(count > 0, count, 1) for name, count in counts.items()}


def _averages(hits: Array, true: Array, predicted: Array) -> dict[str, float]:
    """Return macro and weighted averages of precision, recall and F1."""
    scores = {}
    for name, values in _precision_recall_f1(hits, true, predicted).items():
        scores[f"{name}_macro"] = values.mean()
        scores[f"{name}_weighted"] = values @ true / max(true.sum(), 1)
    return scores


def _roc_auc(y: Array, score: Array) -> float:
    """Return the mean ROC AUC of columns, from ranks (Hanley and McNeil 1982), all together.

    `roc_auc_score`, column by column, would take most of the time of the resamples.
    """
    ranks = rankdata(score, axis=0)
    n_ones = y.sum(axis=0)
    pairs = n_ones * (len(y) - n_ones)
    return float((((ranks * y).sum(axis=0) - n_ones * (n_ones + 1) / 2) / pairs).mean())


def _per_class(y: Array, y_pred: Array, classes: Array) -> dict[Any, dict[str, float]]:
    counts = _counts(y, y_pred, len(classes))
    columns = {**_precision_recall_f1(*counts), "support": counts[1]}
    return {
        name: {key: column[i].item() for key, column in columns.items()}
        for i, name in enumerate(classes.tolist())
    }
