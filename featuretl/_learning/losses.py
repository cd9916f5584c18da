"""The losses of the linear heads, on a block of rows and all folds at once.

Each overwrites `logits` (r, folds, columns) with the derivative of the loss, and returns the loss
of each row and the curvature (r, folds, columns), the second derivative. The cross-entropies are
written so that a small loss keeps its relative precision in float32: the derivative of the true
class is minus the sum of the others, never ``p - 1``.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from featuretl._core.types import Array


def softmax_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, 1) of class numbers `target` (r,), and the curvature.

    >>> logits = np.zeros((1, 1, 4))
    >>> round(softmax_cross_entropy(logits, np.array([2]))[0].item(), 4)
    1.3863
    >>> logits.tolist()
    [[[0.25, 0.25, -0.75, 0.25]]]
    """
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
    return loss[:, :, None], _spread(logits)


def binary_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and the curvature.

    >>> logits = np.zeros((1, 1, 2))
    >>> binary_cross_entropy(logits, np.array([[1, 0]]))[0].round(4).tolist()
    [[[0.6931, 0.6931]]]
    >>> logits.tolist()
    [[[-0.5, 0.5]]]
    """
    sign = -_sign(logits, target)
    logits *= sign
    loss = np.logaddexp(0, logits)
    expit(logits, out=logits)
    logits *= sign
    return loss, _spread(logits)


def squared_hinge(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and the curvature.

    >>> logits = np.zeros((1, 1, 2))
    >>> squared_hinge(logits, np.array([[1, 0]]))[0].tolist()
    [[[1.0, 1.0]]]
    >>> logits.tolist()
    [[[-2.0, 2.0]]]
    """
    sign = _sign(logits, target)
    shortfall = np.maximum(1 - sign * logits, 0)
    np.multiply(-2 * sign, shortfall, out=logits)
    return np.square(shortfall), 2 * (shortfall > 0).astype(logits.dtype)


def _sign(logits: Array, target: Array) -> Array:
    """Return 1 where `target` (r, labels) is 1 and -1 where it is 0, as (r, 1, labels)."""
    return (2 * target[:, None, :].astype(np.int8) - 1).astype(logits.dtype)


def _spread(residual: Array) -> Array:
    size = np.abs(residual)
    return size * (1 - size)
