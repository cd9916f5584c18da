"""Preconditioned L-BFGS for many smooth convex problems in lockstep.

The problems (folds, or folds x labels) share every pass over the data, because one wide matrix
product costs much less than several narrow ones; each keeps its own history, step and end.
Each round evaluates all problems once: those whose step descends enough take it and get a new
direction, the others try a shorter step (Nocedal and Wright, Numerical Optimization, 7.2).
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
# Added to the value that `tol` multiplies: a separable problem may have 0 as its infimum.
_NEGLIGIBLE = 1e-6
# Once at most this share of the problems runs on, the others are left out of the passes.
_WORTH_LEAVING_OUT = 0.75


class Solution(NamedTuple):
    """Where the minimiser ended: `x` (problems, size) and, per problem, value and convergence."""

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

    ``evaluate(x, which)`` returns, for the problems `which` (p,) at `x` (p, size), the values (p,),
    the gradients (p, size) and a state (p, any) for ``precondition(gradients, state, which)``, which
    multiplies by an approximate inverse Hessian. A problem ends, after one step at least, when its
    expected further decrease is below `tol` times its value, or float precision stops it.
    """
    found, values, converged = x.copy(), np.empty(len(x)), np.ones(len(x), bool)
    which: Array = np.arange(len(x))
    value, gradient, state = evaluate(x, which)
    direction = precondition(gradient, state, which)
    history: History = deque(maxlen=_MEMORY)
    scale: Array = np.ones(len(x))
    step: Array = np.ones(len(x))
    running = np.ones(len(x), bool)
    for n_iter in range(1, max_iter + 1):
        slope = _dot(gradient, direction)
        promising = slope / 2 > tol * (value + _NEGLIGIBLE)
        if n_iter == 1:  # under a strong penalty all that can be gained is little
            promising = slope > 0
        running &= promising & (step >= _SHORTEST_STEP)
        if not running.any():
            break
        if running.mean() <= _WORTH_LEAVING_OUT:
            found[which], values[which] = x, value
            own = (which, x, value, gradient, state, direction, scale, step, slope)
            which, x, value, gradient, state, direction, scale, step, slope = (
                array[running] for array in own
            )
            history = _only(running, history)
            running = np.ones(len(which), bool)
        step[~running] = 0
        trial = x - step[:, None] * direction
        new_value, new_gradient, new_state = evaluate(trial, which)
        taken = running & (new_value <= value - _SUFFICIENT_DECREASE * step * slope)
        if taken.any():
            history.append(_pair(trial - x, new_gradient - gradient, taken))
            x = np.where(taken[:, None], trial, x)
            gradient = np.where(taken[:, None], new_gradient, gradient)
            state = np.where(taken[:, None], new_state, state)
            turned = _two_loops(gradient, history, precondition, (state, which), scale)
            direction = np.where(taken[:, None], turned, direction)
        step = np.where(taken, 1.0, step * _shrink(value, new_value, step, slope))
        value = np.where(taken, new_value, value)
    found[which], values[which], converged[which] = x, value, ~running
    return Solution(found, values, converged, n_iter)


def _only(running: Array, history: History) -> History:
    kept = (tuple(part[running] for part in pair) for pair in history)
    return deque(kept, maxlen=_MEMORY)


def _two_loops(
    gradient: Array,
    history: History,
    precondition: Callable[..., Array],
    point: tuple[Array, Array],
    scale: Array,
) -> Array:
    """Return the directions (p, size) by the history, whose newest pair sets the `scale` (p,)."""
    turned, inverse = history[-1][1:]
    known = inverse > 0
    scale[known] = 1 / (inverse * _dot(turned, precondition(turned, *point)))[known]
    q = gradient.copy()
    shares = []
    for moved, turned, inverse in reversed(history):
        share = inverse * _dot(moved, q)
        q -= share[:, None] * turned
        shares.append(share)
    q = scale[:, None] * precondition(q, *point)
    for (moved, turned, inverse), share in zip(history, reversed(shares), strict=True):
        q += (share - inverse * _dot(turned, q))[:, None] * moved
    return q


def _pair(moved: Array, turned: Array, taken: Array) -> tuple[Array, Array, Array]:
    """Return (s, y, 1 / s.y); a problem that did not move contributes nothing."""
    product = _dot(moved, turned)
    useful = taken & (product > 1e-12 * _dot(turned, turned) ** 0.5 * _dot(moved, moved) ** 0.5)
    inverse = np.divide(1.0, product, out=np.zeros_like(product), where=useful)
    return moved, turned, inverse


def _shrink(value: Array, new_value: Array, step: Array, slope: Array) -> Array:
    """Return the factor, in [0.1, 0.5], to the minimum of the parabola through both values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = slope * step / (2 * (new_value - value + slope * step))
    return np.clip(np.nan_to_num(factor, nan=0.1), 0.1, 0.5)


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("bp,bp->b", a, b)
