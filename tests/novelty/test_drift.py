"""The result of a drift test as a sentence."""

from dataclasses import replace

import pytest

from featuretl.novelty.drift import Drift

CLEAR = Drift(images=1234, novel=200, expected=61.7, level=0.05, pvalue=2e-5, can_tell=True)


def test_a_clear_drift_has_its_probability_by_chance():
    assert CLEAR.is_clear
    assert repr(CLEAR) == CLEAR.explain()
    assert "200 of 1,234 images" in str(CLEAR)
    assert "5% level, where 61.7 are expected" in str(CLEAR)
    assert "(p = 2e-05 for" in str(CLEAR)
    assert "(p < 1e-6 for" in str(replace(CLEAR, pvalue=9e-7))
    assert "0.1% level" in str(replace(CLEAR, level=0.001))


@pytest.mark.parametrize(("pvalue", "is_clear"), [(0.00099, True), (0.001, False), (1.0, False)])
def test_drift_is_clear_below_one_in_a_thousand(pvalue, is_clear):
    drift = replace(CLEAR, pvalue=pvalue)
    assert drift.is_clear == is_clear
    assert ("no clear sign" in str(drift)) != is_clear
    assert ("may have changed" in str(drift)) == is_clear


def test_what_cannot_be_told_says_so():
    few = replace(CLEAR, pvalue=1.0, can_tell=False)
    assert str(few).endswith("too few images or groups to tell whether the images have changed.")
    blind = replace(CLEAR, novel=0, expected=0.0, pvalue=1.0, can_tell=False)
    assert str(blind).startswith("There are too few training images")


def test_no_images_are_no_sign_of_a_change():
    none = Drift(images=0, novel=0, expected=0.0, level=0.05, pvalue=1.0, can_tell=False)
    assert str(none).startswith("0 of 0 images")
    assert "no clear sign" in str(none)
