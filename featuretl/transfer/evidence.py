"""What held-out images say: standard errors, intervals and paired gains; groups count as one draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from featuretl._uncertainty import interval_of_share, margin, standard_error

Array = np.ndarray[Any, Any]

_CONFIDENCE = 0.95


class Gain(NamedTuple):
    """By how much one candidate is better than another on the `images` that both were judged by."""

    mean: float
    error: float
    images: int

    @property
    def is_clear(self) -> bool:
        """Whether it exceeds one standard error."""
        return self.images > 0 and self.mean > self.error


def error_of_mean(values: Array, groups: Array | None = None) -> float:
    """Return the standard error of the mean of `values` (k,); those of a group count as one draw."""
    return standard_error((values - values.mean()) / len(values), _numbered(values, groups))


def gain_of(better: Array, than: Array, groups: Array | None = None) -> Gain:
    """Return the paired gain over the rows where neither of two arrays (n,) is NaN."""
    shared = ~(np.isnan(better) | np.isnan(than))
    if not shared.any():
        return Gain(np.nan, np.inf, 0)
    difference = better[shared] - than[shared]
    error = error_of_mean(difference, None if groups is None else groups[shared])
    return Gain(float(difference.mean()), error, int(shared.sum()))


def interval(scores: Array, groups: Array | None, proportion: bool) -> tuple[float, float]:
    """Return the 95% interval of the mean of `scores` (k,); of a `proportion`, Wilson's."""
    mean, error = float(scores.mean()), error_of_mean(scores, groups)
    units = _numbered(scores, groups)
    errors = margin(_CONFIDENCE, units)
    if proportion:
        return interval_of_share(mean, error, errors, int(units.max()) + 1)
    return mean - errors * error, mean + errors * error


def _numbered(values: Array, groups: Array | None) -> Array:
    return np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
