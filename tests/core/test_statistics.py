"""Intervals agree with textbook formulas, and have their nominal coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from featuretl._core.statistics import (
    interval_of_ratio,
    interval_of_share,
    jackknife_errors,
    share_with_interval,
    standard_error,
    units_of,
)


def influence_of_mean(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / len(values)


def test_the_error_of_a_mean_is_the_textbooks():
    right = np.arange(40) % 4 > 0
    expected = right.std(ddof=1) / np.sqrt(40)
    assert standard_error(influence_of_mean(right), np.arange(40)) == pytest.approx(expected)
    by_jackknife = jackknife_errors(lambda rows: {"mean": right[rows].mean()}, np.arange(40))
    assert by_jackknife["mean"] == pytest.approx(expected)


def test_copies_of_an_image_in_one_group_are_one_image():
    right = (np.arange(40) % 4 > 0).astype(float)
    alone = share_with_interval(right, np.ones(40))
    copies = share_with_interval(np.tile(right, 3), np.ones(120), np.tile(np.arange(40), 3))
    assert copies == pytest.approx(alone, abs=0.01)
    everything = share_with_interval(np.ones(120), np.ones(120), np.tile(np.arange(40), 3))
    assert everything == pytest.approx(share_with_interval(np.ones(40), np.ones(40)))


@pytest.mark.parametrize("right", [0, 1, 30, 40])
def test_the_interval_of_a_share_is_the_exact_one(right):
    scores = (np.arange(40) < right).astype(float)
    expected = binomtest(right, 40).proportion_ci(method="exact")
    assert share_with_interval(scores, np.ones(40))[1:] == pytest.approx(tuple(expected))


def test_one_group_tells_nothing():
    assert share_with_interval(np.ones(9), np.ones(9), np.zeros(9))[1:] == (0.0, 1.0)
    assert interval_of_share(0.9, np.inf, 0.95, np.ones(1)) == (0.0, 1.0)
    assert interval_of_ratio(np.ones(9), np.ones(9), np.zeros(9, int)) == (0.0, np.inf)


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover_what_they_claim(grouped):
    rng, held = np.random.default_rng(0), []
    groups = np.repeat(np.arange(10), 6) if grouped else np.arange(40)
    for _ in range(300):
        ease = rng.normal(size=groups.max() + 1)[groups] if grouped else 0.0
        right = (ease + rng.normal(size=len(groups)) > -1.5).astype(float)
        loss = np.exp(0.5 * ease + 0.5 * rng.normal(size=len(groups)))
        truth = 0.8555778 if grouped else 0.9331928, np.exp(0.25 if grouped else 0.125)
        share = share_with_interval(right, np.ones(len(right)), groups)[1:]
        mean = interval_of_ratio(loss, np.ones(len(loss)), groups)
        held.append([low <= t <= high for (low, high), t in zip((share, mean), truth, strict=True)])
    assert (np.mean(held, axis=0) > 0.92).all()


def test_a_mean_that_one_row_decides_has_no_interval():
    values = np.append(np.full(29, 1e-3), 5.0)
    assert interval_of_ratio(values, np.ones(30), np.arange(30)) == (0.0, np.inf)


def test_many_groups_are_merged_into_units_of_one_size():
    units = units_of(np.repeat(np.arange(1000), 2))
    assert (np.bincount(units) == 10).all()
    assert len(np.unique(units)) == 200
    assert (units[::2] == units[1::2]).all()
