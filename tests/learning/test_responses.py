"""Decision values, probabilities and classes agree for two classes, many classes and labels."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.utils import Bunch

from featuretl._learning.responses import Responses, chosen_codes

RNG = np.random.default_rng(0)
MANY, TWO = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 1))


class Head(Responses):
    """A head whose logits are X."""

    def __init__(self, multilabel=False, temperature=1.0):
        self.classes_ = np.array(["ant", "bee", "cow"])
        self._multilabel, self.calibration_ = multilabel, Bunch(temperature=temperature)

    def _logits(self, X):
        return X


def test_of_many_classes_the_largest_logit_wins():
    head = Head(temperature=2.0)
    assert head.decision_function(MANY) is MANY
    np.testing.assert_allclose(head.predict_proba(MANY), softmax(MANY / 2, axis=1))
    assert head.predict(MANY).tolist() == head.classes_[MANY.argmax(axis=1)].tolist()


def test_two_classes_have_one_decision_value():
    head = Head(temperature=2.0)
    assert head.decision_function(TWO).shape == (50,)
    proba = head.predict_proba(TWO)
    np.testing.assert_allclose(proba[:, 1], expit(TWO[:, 0] / 2))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert head.predict(TWO).tolist() == np.where(TWO[:, 0] > 0, "bee", "ant").tolist()
    assert chosen_codes(np.zeros((1, 1))).tolist() == chosen_codes(np.zeros((1, 2))).tolist() == [0]


@pytest.mark.parametrize("logits", [TWO, MANY])
def test_labels_are_independent_also_if_there_is_one(logits):
    head = Head(multilabel=True)
    assert head.decision_function(logits).shape == logits.shape
    np.testing.assert_allclose(head.predict_proba(logits), expit(logits))
    np.testing.assert_array_equal(head.predict(logits), head.predict_proba(logits) > 0.5)


@pytest.mark.parametrize("logits", [TWO, MANY])
def test_a_temperature_lowers_the_error_of_overconfident_logits(logits):
    logits = np.repeat(logits, 40, axis=0)
    proba = Head()._probabilities(logits)
    codes = (RNG.uniform(size=(len(proba), 1)) > proba.cumsum(axis=1)).sum(axis=1)
    found = Head()._calibration(5 * logits, codes, np.ones(len(codes)), judged=True)
    assert found.temperature == pytest.approx(5, rel=0.15)
    assert found.error_after < 0.05 < found.error_before
    kept = Head()._calibration(5 * logits, codes, np.ones(len(codes)), judged=False, expected=1.0)
    assert kept.temperature == 1
    assert kept.error_after == kept.error_before == found.error_before
