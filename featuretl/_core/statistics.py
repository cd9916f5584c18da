"""Standard errors, confidence intervals and paired gains of scores.

Rows of one group (a patient, a signer) count as one draw: groups are resampled and left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta
from scipy.stats import t as student

from featuretl._core.types import Array

CONFIDENCE = 0.95
RESAMPLES = 1000
# More units are merged at random: they would take long without better intervals.
_MAX_UNITS = 200
# If the standard error exceeds this fraction of an error, a few rows determine it, and intervals of
# any kind cover far less than they claim (benchmarks/intervals.py).
_MAX_RELATIVE_ERROR = 0.5


def standard_error(influence: Array, groups: Array) -> float:
    """Return the cluster-robust standard error (Liang and Zeger 1986); inf for a single group.

    `influence` (n,) is the derivative of the score by each row's weight; `groups` (n,) from 0.
    """
    together = np.bincount(groups, influence)
    n = len(together)
    return float(np.sqrt(n / (n - 1) * np.square(together).sum())) if n > 1 else np.inf


def jackknife_errors(
    scores_of: Callable[[Array], dict[str, float]], units: Array
) -> dict[str, float]:
    """Return the jackknife's standard error of each score; `units` (n,), int, are from `units_of`.

    `scores_of` maps rows (k,), int, to scores; undefined scores are NaN.
    """
    n = int(units.max()) + 1
    if n == 1:
        return dict.fromkeys(scores_of(np.arange(len(units))), np.inf)
    left = [scores_of(np.flatnonzero(units != unit)) for unit in range(n)]
    errors = {}
    for name in left[0]:
        values = np.array([scores[name] for scores in left])
        values = values[~np.isnan(values)]
        errors[name] = float(np.sqrt(n - 1) * values.std()) if len(values) else np.inf
    return errors


def units_of(groups: Array) -> Array:
    """Return the codes `groups` (n,), with more than 200 groups merged at random into 200."""
    n = int(groups.max()) + 1
    merged = np.random.default_rng(0).permutation(n) % min(n, _MAX_UNITS)
    return merged[groups]


def margin(confidence: float, n_groups: float) -> float:
    """Return the half-width of an interval in standard errors (Student's t)."""
    return float(student.ppf((1 + confidence) / 2, max(n_groups - 1, 1)))


def interval_of_share(
    share: float, error: float, confidence: float, sizes: Array, most: float = np.inf
) -> tuple[float, float]:
    """Return the exact binomial interval (Clopper and Pearson 1934) of a score in [0, 1].

    The effective number of rows gives the same standard `error` (Korn and Graubard 1998), and is at
    most `most` and the sum of `sizes` (n_groups,), the weights of the groups.
    """
    if math.isinf(error) or math.isnan(share):
        return (0.0, 1.0) if math.isinf(error) else (np.nan, np.nan)
    total = float(sizes.sum())
    n = total**2 / np.square(sizes).sum()  # for groups of equal rows, the conservative assumption
    if error > 1e-9:
        rows = max(total, 2.0)
        n = share * (1 - share) / error**2 * rows / (rows - 1)
        n *= (margin(confidence, rows) / margin(confidence, len(sizes))) ** 2
    n = min(n, total, most)
    hits, tail = share * n, (1 - confidence) / 2
    low = beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(1 - tail, hits + 1, n - hits) if n - hits > 1e-9 else 1.0
    return float(low), float(high)


def share_with_interval(
    hits: Array, of: Array, groups: Any = None, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Return sum(hits) / sum(of), both (n,), and its interval; NaN if `of` is all zero."""
    counted = of > 0
    if not counted.any():
        return np.nan, np.nan, np.nan
    units = _numbered(of[counted], None if groups is None else np.asarray(groups)[counted])
    share = float(hits.sum() / of.sum())
    error = standard_error((hits - share * of)[counted] / of.sum(), units)
    sizes = np.bincount(units, of[counted])
    return share, *interval_of_share(share, error, confidence, sizes)


def interval_of_ratio(
    values: Array,
    of: Array,
    groups: Array,
    confidence: float = CONFIDENCE,
    n_bootstrap: int = RESAMPLES,
    random_state: Any = 0,
) -> tuple[float, float]:
    """Return the interval of sum(values) / sum(of), both (n,) and >= 0, such as a mean error.

    It is the bootstrap-t interval of the logarithm (Efron and Tibshirani 1993, chapter 12), for
    skewed errors; or [0, inf) if a few units of `groups` (n,) determine the sum.
    """
    units = units_of(groups)
    n = int(units.max()) + 1
    sums, sizes = np.bincount(units, values), np.bincount(units, of)
    if n == 1 or not sums.any():
        return 0.0, np.inf
    draws = np.random.default_rng(random_state).multinomial(n, np.full(n, 1 / n), n_bootstrap)
    (ratio,), (error,) = _log_ratios(np.ones((1, n)), sums, sizes)
    ratios, errors = _log_ratios(draws, sums, sizes)
    if not error <= _MAX_RELATIVE_ERROR:
        return 0.0, np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        studentized = (ratios - ratio) / errors
    studentized = np.append(studentized[np.isfinite(studentized)], 0.0)
    tail = (1 - confidence) / 2
    high, low = np.quantile(studentized, (tail, 1 - tail))
    return float(np.exp(ratio - max(low, 0) * error)), float(np.exp(ratio - min(high, 0) * error))


def _log_ratios(draws: Array, sums: Array, sizes: Array) -> tuple[Array, Array]:
    """Return the log of the ratio of sums of each of `draws` (k, n), and its error: (k,) each."""
    n = len(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = draws @ sums, draws @ sizes
        influence = sums / above[:, None] - sizes / below[:, None]
        error = np.sqrt(n / (n - 1) * (draws * np.square(influence)).sum(axis=1))
        return np.log(above / below), error


class Gain(NamedTuple):
    """Mean gain of one candidate over another on the images with scores of both."""

    mean: float
    error: float
    images: int

    @property
    def is_clear(self) -> bool:
        """Whether the gain exceeds one standard error."""
        # One image more is exactly one standard error, whatever rounding makes of it.
        return self.images > 0 and self.mean > self.error * (1 + 1e-9)


def error_of_mean(values: Array, groups: Array | None = None) -> float:
    """Return the standard error of the mean of `values` (k,)."""
    return standard_error((values - values.mean()) / len(values), _numbered(values, groups))


def gain_of(better: Array, than: Array, groups: Array | None = None) -> Gain:
    """Return the paired gain of `better` over `than`, (n,) each, on rows where neither is NaN."""
    shared = ~(np.isnan(better) | np.isnan(than))
    if not shared.any():
        return Gain(np.nan, np.inf, 0)
    difference = better[shared] - than[shared]
    error = error_of_mean(difference, None if groups is None else groups[shared])
    return Gain(float(difference.mean()), error, int(shared.sum()))


def interval(scores: Array, groups: Array | None, proportion: bool) -> tuple[float, float]:
    """Return the 95% interval of the mean of `scores` (k,), in [0, 1] if `proportion`."""
    if proportion:
        return share_with_interval(scores, np.ones(len(scores)), groups)[1:]
    low, high = interval_of_ratio(1 - scores, np.ones(len(scores)), _numbered(scores, groups))
    return 1 - high, 1 - low


def interval_in_words(low: float | None, high: float | None) -> str:
    """Return the 95% interval as text; a limit that is None or not finite means no interval."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return "no interval: too few images"
    return f"{CONFIDENCE:.0%} interval {low:.3f} to {high:.3f}"


def _numbered(values: Array, groups: Array | None) -> Array:
    return np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
