"""The losses of the linear heads, on a block of rows and all folds together.

Each function overwrites `logits` (r, folds, columns) with the first derivative of the loss, and
returns the loss of each row and its second derivative (r, folds, columns). The cross-entropies keep
the relative precision of small losses in float32: they never compute ``p - 1``.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from featuretl._core.types import Array


def softmax_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, 1) of class codes `target` (r,), and its second derivative."""
    row = np.arange(len(logits))
    logits -= logits.max(axis=2, keepdims=True)
    margin = logits[row, :, target]
    np.exp(logits, out=logits)
    true = logits[row, :, target]
    logits[row, :, target] = 0
    others = logits.sum(axis=2)
    total = others + true
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        loss = np.where(true > others, np.log1p(others / true), np.log(total) - margin)
    logits /= total[:, :, None]
    logits[row, :, target] = -others / total
    return loss[:, :, None], _curvature(logits)


def binary_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and its second derivative."""
    sign = -_sign(logits, target)
    logits *= sign
    loss = np.logaddexp(0, logits)
    expit(logits, out=logits)
    logits *= sign
    return loss, _curvature(logits)


def squared_hinge(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and its second derivative."""
    sign = _sign(logits, target)
    shortfall = np.maximum(1 - sign * logits, 0)
    np.multiply(-2 * sign, shortfall, out=logits)
    return np.square(shortfall), 2 * (shortfall > 0).astype(logits.dtype)


def _sign(logits: Array, target: Array) -> Array:
    """Return 1 where `target` (r, labels) is 1 and -1 where it is 0, as (r, 1, labels)."""
    return (2 * target[:, None, :].astype(np.int8) - 1).astype(logits.dtype)


def _curvature(residual: Array) -> Array:
    """Return p (1 - p) for residuals p or p - 1."""
    size = np.abs(residual)
    return size * (1 - size)
