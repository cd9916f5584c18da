"""Schedules: the factor on the learning rate, by progress through training.

Each is a function of `t`, the progress in [0, 1], and of the number of epochs; the sources:
cosine: Loshchilov and Hutter 2017; one-cycle: Smith and Topin 2018, as in fastai (from 1/25 up to
1 in the first quarter, then down to 1e-5, both along cosines); inverse-time: 1 / (1 + lambda e) at
epoch e; step: divided by 10 after 60% and again after 85%.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def rate_factor(schedule: str, warmup: float, decay_rate: float, epochs: int) -> Callable:
    """Return the function from progress to factor; the parameters are those of `Training`.

    >>> factor = rate_factor("cosine", 0.0, 1.0, 10)
    >>> [round(factor(t), 2) for t in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    >>> factor = rate_factor("inverse-time", 0.0, 0.5, 10)
    >>> [round(factor(t), 2) for t in (0, 0.2, 1)]
    [1.0, 0.5, 0.17]
    """
    shapes = {
        "cosine": lambda t: _cosine(1.0, 0.0, t),
        "one-cycle": _one_cycle,
        "inverse-time": lambda t: 1 / (1 + decay_rate * t * epochs),
        "step": lambda t: 0.1 ** ((t >= 0.6) + (t >= 0.85)),
        "constant": lambda t: 1.0,
    }
    shape = shapes[schedule]

    def factor(t: float) -> float:
        if t < warmup:
            return t / warmup
        return shape((t - warmup) / (1 - warmup))

    return factor


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def _one_cycle(t: float) -> float:
    return _cosine(1 / 25, 1.0, t / 0.25) if t < 0.25 else _cosine(1.0, 1e-5, (t - 0.25) / 0.75)
