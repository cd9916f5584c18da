"""What held-out images say: standard errors, intervals and paired gains; groups count as one draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

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


def standard_error(values: Array, groups: Array | None = None) -> float:
    """Return the standard error of the mean of `values` (k,).

    Values of one group are drawn together: their deviations are summed before they are squared
    (Liang and Zeger 1986, the cluster-robust variance of a mean). Infinite for one group.
    """
    deviations = values - values.mean()
    if groups is not None:
        deviations = np.bincount(np.unique(groups, return_inverse=True)[1], deviations)
    m = len(deviations)
    if m < 2:
        return np.inf
    return float(np.sqrt(m / (m - 1) * np.square(deviations).sum()) / len(values))


def gain_of(better: Array, than: Array, groups: Array | None = None) -> Gain:
    """Return the paired gain over the rows where neither of two arrays (n,) is NaN."""
    shared = ~(np.isnan(better) | np.isnan(than))
    if not shared.any():
        return Gain(np.nan, np.inf, 0)
    difference = better[shared] - than[shared]
    error = standard_error(difference, None if groups is None else groups[shared])
    return Gain(float(difference.mean()), error, int(shared.sum()))


def interval(scores: Array, groups: Array | None, proportion: bool) -> tuple[float, float]:
    """Return the 95% interval of the mean of `scores` (k,).

    Of a `proportion`, Wilson's (1927), with as many images as would give the same standard error
    were they drawn one by one; otherwise 1.96 standard errors to either side.
    """
    z = float(norm.ppf(0.5 + _CONFIDENCE / 2))
    mean, error = float(scores.mean()), standard_error(scores, groups)
    if not proportion:
        return mean - z * error, mean + z * error
    n = float(len(scores) if groups is None else len(np.unique(groups)))
    if 0 < mean < 1:
        n = min(len(scores), max(1.0, mean * (1 - mean) / error**2))
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return float(centre - half), float(centre + half)
