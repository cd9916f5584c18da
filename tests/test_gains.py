"""Standard errors, intervals and paired gains agree with independent computations."""

import numpy as np
import pytest
from scipy.stats import binomtest

from featuretl._core.statistics import error_of_mean, gain_of, interval


def test_the_error_of_mean_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=50)
    assert error_of_mean(values) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_images_of_a_group_count_as_one_draw():
    values = np.random.default_rng(0).normal(size=50)
    twice, groups = np.repeat(values, 2), np.repeat(np.arange(50), 2)
    assert error_of_mean(twice, groups) == pytest.approx(error_of_mean(values))
    assert error_of_mean(values, np.zeros(50)) == np.inf


def test_the_error_of_mean_of_groups_covers_what_it_says():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    means, errors = [], []
    for _ in range(300):
        values = rng.normal(size=40)[groups] + rng.normal(size=200)
        means.append(values.mean())
        errors.append(error_of_mean(values, groups))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


@pytest.mark.parametrize("right", [0, 1, 13, 19, 20])
def test_the_interval_of_a_proportion_is_the_exact_one(right):
    scores = np.arange(20) < right
    expected = binomtest(right, 20).proportion_ci(method="exact")
    assert interval(scores.astype(float), None, True) == pytest.approx(tuple(expected))


def test_the_interval_of_groups_is_wider():
    scores = np.repeat(np.arange(10) < 7, 4).astype(float)
    low, high = interval(scores, np.repeat(np.arange(10), 4), True)
    narrow = interval(scores, None, True)
    assert low < narrow[0] < 0.7 < narrow[1] < high
    assert interval(scores, np.zeros(40), True) == (0.0, 1.0)


def test_gains_are_paired_on_shared_images():
    base = np.array([1, 0, 0, 1, 0, np.nan])
    better = np.array([1, 1, 1, 1, np.nan, 1])
    gain = gain_of(better, base)
    assert (gain.mean, gain.images) == (0.5, 4)
    assert gain.error == pytest.approx(np.std([0, 1, 1, 0], ddof=1) / 2)
    assert gain.is_clear
    assert not gain_of(base, base).is_clear
    assert not gain_of(base[:5], np.full(5, np.nan)).is_clear
