"""The two losses of the linear heads, on a block of rows and all folds at once.

Both overwrite `logits` (r, folds, columns) with the residual ``p - y`` and return the loss of
each row. They are written so that a small loss keeps its relative precision in float32: the
residual of the true class is minus the sum of the others, never ``p - 1``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

Array = np.ndarray[Any, Any]


def softmax_cross_entropy(logits: Array, target: Array) -> Array:
    """Return the loss (r, folds, 1) of class numbers `target` (r,), and leave the residual.

    >>> logits = np.zeros((1, 1, 4))
    >>> round(softmax_cross_entropy(logits, np.array([2])).item(), 4)
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
    return loss[:, :, None]


def binary_cross_entropy(logits: Array, target: Array) -> Array:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and leave the residual.

    >>> logits = np.zeros((1, 1, 2))
    >>> binary_cross_entropy(logits, np.array([[1, 0]])).tolist() == [[[np.log(2)] * 2]]
    True
    >>> logits.tolist()
    [[[-0.5, 0.5]]]
    """
    sign = (1 - 2 * target[:, None, :].astype(np.int8)).astype(logits.dtype)
    logits *= sign
    loss = np.logaddexp(0, logits)
    expit(logits, out=logits)
    logits *= sign
    return loss
