import numpy as np
import pytest
from scipy.special import softmax

from featuretl._learning.calibration import (
    best_temperature,
    expected_calibration_error,
    log_loss_of_rows,
)


def drawn(n=4000, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, classes))
    proba = softmax(logits, axis=1)
    return logits, (rng.uniform(size=(n, 1)) > proba.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_temperature_undoes_a_factor(factor):
    logits, y = drawn()
    assert best_temperature(factor * logits, y, np.ones(len(y))) == pytest.approx(factor, rel=0.06)
    labels = (np.random.default_rng(0).uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))) * 1
    found = best_temperature(factor * logits, labels, np.ones(len(y)))
    assert found == pytest.approx(factor, rel=0.06)


def test_few_rows_say_little_and_no_temperature_is_at_a_bound():
    wrong, right = np.array([[-4.0]] * 3), np.array([[4.0]] * 3)
    ones, target = np.ones(3), np.ones((3, 1), int)
    assert 1 < best_temperature(wrong, target, ones) < 6
    assert 0.3 < best_temperature(right, target, ones) < 1
    assert (
        0.1
        < best_temperature(np.tile(right, (999, 1)), np.tile(target, (999, 1)), np.ones(2997))
        < 0.5
    )
    assert best_temperature(wrong * 0, target, ones, 0.2) == pytest.approx(0.2, rel=1e-3)
    for seed in range(20):  # never worse on these rows than the expected temperature
        logits, y = drawn(8, seed=seed)
        found = best_temperature(logits, y, np.ones(8))
        assert log_loss_of_rows(logits / found, y).sum() <= log_loss_of_rows(logits, y).sum() + 1e-9


def test_calibration_error_is_small_for_true_probabilities_only():
    logits, y = drawn()
    assert expected_calibration_error(y, softmax(logits, axis=1)) < 0.03
    assert expected_calibration_error(y, softmax(5 * logits, axis=1)) > 0.1


def test_calibration_error_counts_weights_and_labels():
    proba = np.array([[0.9, 0.1], [0.9, 0.1]])
    y = np.array([0, 1])
    assert expected_calibration_error(y, proba, np.array([1, 0])) == pytest.approx(0.1)
    assert expected_calibration_error(y, proba) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([[1, 0], [1, 0]]), proba) == pytest.approx(0.1)
    assert expected_calibration_error(np.array([0, 0, 0, 1]), np.array([[0.75, 0.25]] * 4)) == 0.0


def test_log_loss_of_rows():
    logits, y = drawn(50)
    expected = -np.log(softmax(logits, axis=1)[np.arange(50), y])
    np.testing.assert_allclose(log_loss_of_rows(logits, y), expected)
