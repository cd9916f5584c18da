"""Preconditioned L-BFGS (Nocedal and Wright, 7.2) for many smooth convex problems in lockstep.

They share every pass over the data: one wide product costs less than several narrow ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from featuretl._core.types import Array

History = deque[tuple[Array, ...]]

_MEMORY = 10
_SUFFICIENT_DECREASE = 1e-4
_SHORTEST_STEP = 1e-6
_NEGLIGIBLE = 1e-6  # added to the value that `tol` multiplies, which may approach 0
_WORTH_DROPPING = 0.75  # if at most this fraction of the problems runs, passes drop the others


class Solution(NamedTuple):
    """The result: `x` (problems, size), and the value and convergence of each problem."""

    x: Array
    value: Array
    converged: Array
    n_iter: int


def minimise(
    evaluate: Callable[[Array, Array], tuple[Array, Array, Array]],
    precondition: Callable[[Array, Array, Array], Array],
    x: Array,
    tol: float,
    max_iter: int,
) -> Solution:
    """Minimise all problems from `x` (problems, size), in at most `max_iter` >= 1 evaluations.

    ``evaluate(x, which)`` returns for the problems `which` (p,) at `x` (p, size) values (p,),
    gradients (p, size) and a state (p, any) for ``precondition(gradients, state, which)``, which
    multiplies by an approximate inverse Hessian. A problem stops, after a step, when its expected
    further decrease is below `tol` times its value, or float precision prevents one.
    """
    found, values, converged = x.copy(), np.empty(len(x)), np.ones(len(x), bool)
    which: Array = np.arange(len(x))
    value, gradient, state = evaluate(x, which)
    direction = precondition(gradient, state, which)
    history: History = deque(maxlen=_MEMORY)
    scale, step = np.ones((2, len(x)))
    running = np.ones(len(x), bool)
    for n_iter in range(1, max_iter + 1):
        slope = _dot(gradient, direction)
        promising = slope / 2 > tol * (value + _NEGLIGIBLE)
        if n_iter == 1:  # a strong penalty leaves little to gain
            promising = slope > 0
        running &= promising & (step >= _SHORTEST_STEP)
        if not running.any():
            break
        if running.mean() <= _WORTH_DROPPING:
            found[which], values[which] = x, value
            own = (which, x, value, gradient, state, direction, scale, step, slope)
            which, x, value, gradient, state, direction, scale, step, slope = (
                array[running] for array in own
            )
            pairs = [tuple(part[running] for part in pair) for pair in history]
            history = deque(pairs, maxlen=_MEMORY)
            running = np.ones(len(which), bool)
        step[~running] = 0
        trial = x - step[:, None] * direction
        new_value, new_gradient, new_state = evaluate(trial, which)
        accepted = running & (new_value <= value - _SUFFICIENT_DECREASE * step * slope)
        if accepted.any():
            history.append(_pair(trial - x, new_gradient - gradient, accepted))
            x = np.where(accepted[:, None], trial, x)
            gradient = np.where(accepted[:, None], new_gradient, gradient)
            state = np.where(accepted[:, None], new_state, state)
            turned = _two_loops(gradient, history, precondition, (state, which), scale)
            direction = np.where(accepted[:, None], turned, direction)
        step = np.where(accepted, 1.0, step * _shrink(value, new_value, step, slope))
        value = np.where(accepted, new_value, value)
    found[which], values[which], converged[which] = x, value, ~running
    return Solution(found, values, converged, n_iter)


def _two_loops(
    gradient: Array,
    history: History,
    precondition: Callable[..., Array],
    point: tuple[Array, Array],
    scale: Array,
) -> Array:
    """Return the directions (p, size) from the history; its newest pair updates `scale` (p,)."""
    turned, inverse = history[-1][1:]
    known = inverse > 0
    scale[known] = 1 / (inverse * _dot(turned, precondition(turned, *point)))[known]
    q = gradient.copy()
    factors = []
    for moved, turned, inverse in reversed(history):
        factor = inverse * _dot(moved, q)
        q -= factor[:, None] * turned
        factors.append(factor)
    q = scale[:, None] * precondition(q, *point)
    for (moved, turned, inverse), factor in zip(history, reversed(factors), strict=True):
        q += (factor - inverse * _dot(turned, q))[:, None] * moved
    return q


def _pair(moved: Array, turned: Array, accepted: Array) -> tuple[Array, Array, Array]:
    """Return (s, y, 1 / s.y); a problem that did not move contributes nothing."""
    product = _dot(moved, turned)
    useful = accepted & (product > 1e-12 * _dot(turned, turned) ** 0.5 * _dot(moved, moved) ** 0.5)
    inverse = np.divide(1.0, product, out=np.zeros_like(product), where=useful)
    return moved, turned, inverse


def _shrink(value: Array, new_value: Array, step: Array, slope: Array) -> Array:
    """Return the factor in [0.1, 0.5] to the minimum of the parabola through both values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = slope * step / (2 * (new_value - value + slope * step))
    return np.clip(np.nan_to_num(factor, nan=0.1), 0.1, 0.5)


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("bp,bp->b", a, b)
