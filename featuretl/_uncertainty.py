"""How far a score may be off: standard errors, intervals, paired gains; groups count as one draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

Array = np.ndarray[Any, Any]

_CONFIDENCE = 0.95


def standard_error(influence: Array, groups: Array) -> float:
    """Return the standard error of a score over images drawn anew, a whole group at a time.

    Parameters
    ----------
    influence : ndarray of shape (n,), float64
        Derivative of the score, or of a difference of two, by the weight of each image.
    groups : ndarray of shape (n,), int
        Numbers from 0 on; images of one group are drawn together (Liang and Zeger 1986). One group
        alone tells nothing: the error is infinite.
    """
    together = np.bincount(groups, influence)
    n = len(together)
    return float(np.sqrt(n / (n - 1) * np.square(together).sum())) if n > 1 else np.inf


def margin(confidence: float, groups: Array) -> float:
    """Return how many standard errors an interval reaches to either side (Student's t)."""
    return float(student.ppf((1 + confidence) / 2, max(int(groups.max()), 1)))


def interval_of_share(share: float, error: float, errors: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share in [0, 1], `errors` standard errors to either side.

    It has a width where the share is 0 or 1, too. In place of the number of images stands the number
    of independent ones that would have the same standard error; `n` where that is 0.
    """
    if np.isinf(error):
        return 0.0, 1.0
    effective = share * (1 - share) / error**2 if error > 0 else n
    z2 = errors**2 / effective
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return float(middle - half), float(middle + half)


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
