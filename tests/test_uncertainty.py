"""Intervals against textbook formulas ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from featuretl._uncertainty import interval_of_share, standard_error


def influence_of_mean(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / len(values)


def test_the_error_of_a_mean_is_the_textbooks():
    right = np.arange(40) % 4 > 0
    expected = right.std(ddof=1) / np.sqrt(40)
    assert standard_error(influence_of_mean(right), np.arange(40)) == pytest.approx(expected)


def test_copies_of_an_image_in_one_group_are_one_image():
    right = np.arange(40) % 4 > 0
    alone = standard_error(influence_of_mean(right), np.arange(40))
    copies = standard_error(influence_of_mean(np.tile(right, 3)), np.tile(np.arange(40), 3))
    assert copies == pytest.approx(alone)


@pytest.mark.parametrize("right", [0, 1, 30, 40])
def test_the_interval_of_a_share_is_wilsons(right):
    share = right / 40
    error = np.sqrt(share * (1 - share) / 40)
    found = interval_of_share(share, error, norm.ppf(0.975), 40)
    expected = binomtest(right, 40).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
