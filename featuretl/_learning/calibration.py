"""Calibration: temperature scaling and the expected calibration error."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from featuretl._core.types import Array
from featuretl._learning.losses import binary_cross_entropy, softmax_cross_entropy

_BINS = 15
_PRIOR_DEVIATION = 0.5  # of log T: two thirds of temperatures are 0.6 to 1.6 times the expected


def log_loss_of_rows(logits: Array, target: Array) -> Array:
    """Return the cross-entropy (n,) of class codes (n,), or the sum over 0/1 labels (n, labels)."""
    loss = softmax_cross_entropy if target.ndim == 1 else binary_cross_entropy
    return loss(logits[:, None, :].astype(np.float64), target)[0].sum(axis=(1, 2))


def best_temperature(logits: Array, target: Array, weight: Array, expected: float = 1.0) -> float:
    """Return the T > 0 of minimal cross-entropy of held-out ``logits / T`` (Guo et al. 2017).

    A normal prior of log T around log `expected` keeps T finite with few rows (Platt 1999). The
    cross-entropy is never higher than at `expected`.
    """

    def loss(shift: float) -> float:
        scaled = logits / (expected * np.exp(shift))
        fit = weight @ log_loss_of_rows(scaled, target)
        return float(fit + shift**2 / (2 * _PRIOR_DEVIATION**2))

    shift = minimize_scalar(loss, bounds=(-5, 5), method="bounded").x
    return float(expected * np.exp(shift)) if loss(shift) <= loss(0.0) else expected


def expected_calibration_error(target: Array, proba: Array, weight: Array | None = None) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins of [0, 1] (Guo et al. 2017).

    `target` holds class codes (n,), or 0 and 1 (n, labels), whose confidence is max(p, 1 - p).
    """
    weight = np.ones(len(proba)) if weight is None else np.asarray(weight, np.float64)
    if target.ndim == 1:
        confidence, right = proba.max(axis=1), proba.argmax(axis=1) == target
    else:
        confidence, right = np.maximum(proba, 1 - proba).ravel(), ((proba >= 0.5) == target).ravel()
        weight = np.repeat(weight, proba.shape[1])
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bins, weight * (right - confidence))
    return float(np.abs(gap).sum() / weight.sum())
