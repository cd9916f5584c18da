"""Probabilities that mean what they say: temperature scaling and the expected calibration error."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from featuretl._core.types import Array
from featuretl._learning.losses import binary_cross_entropy, softmax_cross_entropy

_BINS = 15
# Of the logarithm of a temperature: two thirds lie between 0.6 and 1.6 of what is expected.
_PRIOR_DEVIATION = 0.5


def probabilities(logits: Array, multinomial: bool) -> Array:
    """Return the softmax over columns, or the logistic function of each column, in float64."""
    logits = logits.astype(np.float64)
    return softmax(logits, axis=1) if multinomial else expit(logits)


def log_loss_of_rows(logits: Array, target: Array) -> Array:
    """Return the cross-entropy (n,) of class numbers (n,), or of (n, labels) summed over labels."""
    loss = softmax_cross_entropy if target.ndim == 1 else binary_cross_entropy
    return loss(logits[:, None, :].astype(np.float64), target)[0].sum(axis=(1, 2))


def best_temperature(logits: Array, target: Array, weight: Array, expected: float = 1.0) -> float:
    """Return the T > 0 that minimises the cross-entropy of ``logits / T`` (Guo et al. 2017).

    Few rows say little, and may be best explained by T = 0 or infinity: so log T has a normal prior
    around the logarithm of `expected`, with a standard deviation of 0.5, which counts as one term
    beside those of the rows (a maximum a posteriori estimate, as Platt 1999 makes for his sigmoid).
    The cross-entropy of the rows is never above that at `expected`.

    `logits` (n, columns) must come from models that did not see the rows; `target` as in
    `log_loss_of_rows`; `weight` (n,), a row of weight 2 counting as two rows.

    >>> logits = 10 * np.array([[1.0], [1.0], [1.0], [-1.0]])
    >>> target = np.array([[1], [1], [0], [0]])
    >>> few = best_temperature(logits, target, np.ones(4))
    >>> many = best_temperature(logits, target, np.full(4, 99.0))
    >>> bool(2 < few < 3), bool(8 < many < 10)
    (True, True)
    """

    def loss(shift: float) -> float:
        scaled = logits / (expected * np.exp(shift))
        fit = weight @ log_loss_of_rows(scaled, target)
        return float(fit + shift**2 / (2 * _PRIOR_DEVIATION**2))

    shift = minimize_scalar(loss, bounds=(-5, 5), method="bounded").x
    return float(expected * np.exp(shift)) if loss(shift) <= loss(0.0) else expected


def expected_calibration_error(target: Array, proba: Array, weight: Array | None = None) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins of [0, 1] (Guo et al. 2017).

    `target` are the positions (n,) of the true classes, or 0 and 1 (n, labels); the confidence is the
    probability of the most probable class, or for each label, of its more probable value. 0 is perfect.

    >>> expected_calibration_error(np.array([0, 0, 0, 1]), np.array([[0.75, 0.25]] * 4))
    0.0
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
