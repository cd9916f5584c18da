"""The losses of the linear heads and their second derivatives, on a block of rows and all folds.

They overwrite `logits` (r, folds, columns) with the derivative, and never compute ``p - 1``, which
would cost the relative precision of small losses in float32.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from featuretl._core.types import Array
from featuretl._learning.arrays import library_of


def softmax_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, 1) of class codes `target` (r,), and its second derivative."""
    xp = library_of(logits)
    row = xp.arange(len(logits), device=logits.device)
    logits -= xp.amax(logits, axis=2, keepdims=True)
    margin = logits[row, :, target]
    xp.exp(logits, out=logits)
    true = logits[row, :, target]
    logits[row, :, target] = 0
    others = logits.sum(axis=2)
    total = others + true
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        loss = xp.where(true > others, xp.log1p(others / true), xp.log(total) - margin)
    logits /= total[:, :, None]
    logits[row, :, target] = -others / total
    return loss[:, :, None], _curvature(logits)


def binary_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and its second derivative."""
    xp, sign = library_of(logits), -_sign(logits, target)
    logits *= sign
    loss = xp.logaddexp(xp.zeros_like(logits), logits)
    (special if xp is np else xp.special).expit(logits, out=logits)
    logits *= sign
    return loss, _curvature(logits)


def squared_hinge(logits: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss (r, folds, labels) of 0/1 `target` (r, labels), and its second derivative."""
    xp, sign = library_of(logits), _sign(logits, target)
    shortfall = xp.clip(1 - sign * logits, 0, None)
    xp.multiply(-2 * sign, shortfall, out=logits)
    return xp.square(shortfall), 2 * xp.asarray(shortfall > 0, dtype=logits.dtype)


def _sign(logits: Array, target: Array) -> Array:
    """Return 1 where `target` (r, labels) is 1 and -1 where it is 0, as (r, 1, labels)."""
    xp = library_of(logits)
    sign = 2 * xp.asarray(target[:, None, :], dtype=xp.int8) - 1
    return xp.asarray(sign, dtype=logits.dtype)


def _curvature(residual: Array) -> Array:
    """Return p (1 - p) for residuals p or p - 1."""
    size: Array = abs(residual)
    return size * (1 - size)
