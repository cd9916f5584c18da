"""Confidence intervals of the scores of `metrics_report`, by a method for each kind of score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from featuretl._core.statistics import (
    interval_of_ratio,
    interval_of_share,
    jackknife_errors,
    share_with_interval,
    units_of,
)
from featuretl._core.types import Array
from featuretl._learning.groups import subset

Intervals = dict[str, tuple[float, float]]

_MIN_MISTAKES = 5  # they dominate the log-loss: with fewer, its interval would be unreliable


def intervals_of(
    task: str,
    predictions: tuple[Array, Array, Array | None],
    score: Callable[[Array, Array, Any], dict[str, float]],
    groups: Array,
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> Intervals:
    """Return the reliable intervals of a `score` of `predictions` (y, y_pred, y_score) in codes."""
    y, y_pred, y_score = predictions
    found = _proportion_intervals(task, y, y_pred, groups, confidence)
    for name, (values, of) in _error_ratios(task, y, y_pred, y_score).items():
        found[name] = interval_of_ratio(values, of, groups, confidence, n_bootstrap, seed)
    scores = score(y, y_pred, y_score)
    if task == "regression":
        scale = scores["root_mean_squared_error"]
        low, high = found["root_mean_squared_error"]
        found["root_mean_squared_error"] = (low * scale) ** 0.5, (high * scale) ** 0.5
        found["r2"] = 1 - found["r2"][1], 1 - found["r2"][0]
    # The estimate of the calibration error is biased upwards by more than its standard error.
    rest = scores.keys() - found.keys() - {"calibration_error"}

    def rest_of(rows: Array) -> dict[str, float]:
        every = score(y[rows], y_pred[rows], subset(y_score, rows))
        return {name: every[name] for name in rest}

    if rest:
        standard_errors = jackknife_errors(rest_of, units_of(groups))
        found |= _average_intervals(y, groups, scores, standard_errors, confidence)
    return {name: found[name] for name in scores if name in found}


def losses_of(y: Array, proba: Array) -> Array:
    """Return the log-loss of each row (n,); for multi-label `y`, the mean over labels."""
    if y.ndim == 1:
        likelihood = proba[np.arange(len(y)), y][:, None]
    else:
        likelihood = np.where(y == 1, proba, 1 - proba)
    return -np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1)).mean(axis=1)


def _proportion_intervals(
    task: str, y: Array, y_pred: Array, groups: Array, confidence: float
) -> Intervals:
    """Return the intervals of scores that are ratios of counts."""
    if task == "regression":
        return {}
    ones = np.ones(len(y))
    if task == "classification":
        right = (y == y_pred).astype(float)
        shares = {"accuracy": (right, ones), "recall_weighted": (right, ones)}
    else:
        hits, true, predicted = (y * y_pred).sum(axis=1), y.sum(axis=1), y_pred.sum(axis=1)
        shares = {
            "subset_accuracy": ((y == y_pred).all(axis=1).astype(float), ones),
            "hamming_loss": ((y != y_pred).sum(axis=1), y.shape[1] * ones),
            "precision_micro": (hits, predicted),
            "recall_micro": (hits, true),
            "recall_weighted": (hits, true),
            "f1_micro": (hits, (true + predicted) / 2),
        }
    return {
        name: share_with_interval(hits, of, groups, confidence)[1:]
        for name, (hits, of) in shares.items()
    }


def _error_ratios(
    task: str, y: Array, y_pred: Array, y_score: Array | None
) -> dict[str, tuple[Array, Array]]:
    """Return errors as numerators and denominators of ratios of sums, (n,) each; R2 as 1 - R2."""
    ones = np.ones(len(y))
    if task != "regression":
        if y_score is None:
            return {}
        mistakes = (y != y_pred).reshape(len(y), -1).any(axis=1).sum()
        losses = losses_of(y, y_score) if mistakes >= _MIN_MISTAKES else 0 * ones
        return {"log_loss": (losses, ones)}  # the interval of zeros is [0, inf)
    y, y_pred = y.reshape(len(y), -1).astype(np.float64), y_pred.reshape(len(y), -1)
    squared, spread = np.square(y - y_pred), np.square(y - y.mean(axis=0))
    total = np.where(spread.any(axis=0), spread.sum(axis=0), 1.0)
    unexplained, root = squared.sum(axis=0) / total, np.sqrt(squared.mean(axis=0))
    tiny = np.finfo(np.float64).tiny
    # The means of several outputs' roots and ratios are linearized.
    return {
        "mean_absolute_error": (np.abs(y - y_pred).mean(axis=1), ones),
        "mean_squared_error": (squared.mean(axis=1), ones),
        "root_mean_squared_error": ((squared / np.maximum(root, tiny)).mean(axis=1), ones),
        "r2": (
            (squared / total).mean(axis=1),
            spread / total @ (unexplained / max(unexplained.sum(), tiny)),
        ),
    }


def _average_intervals(
    y: Array, groups: Array, scores: dict[str, float], errors: dict[str, float], confidence: float
) -> Intervals:
    """Return the intervals of averages over classes, in [0, 1], from their standard errors."""
    sizes, positives = np.bincount(groups).astype(float), np.bincount(y) if y.ndim == 1 else None
    if positives is None:
        sizes, positives = sizes * y.shape[1], y.sum(axis=0)
    both = np.minimum(positives, len(y) - positives)
    found = {}
    for name, error in errors.items():
        # The number of rows of a proportion with the variance of the mean over the classes.
        counts = both if name in ("roc_auc", "average_precision") else positives
        counts = counts[counts > 0]
        most = len(counts) ** 2 / (1 / counts).sum() if len(counts) else 1.0
        most = np.inf if name.endswith("_weighted") else float(most)
        found[name] = interval_of_share(scores[name], error, confidence, sizes, most)
    return found
