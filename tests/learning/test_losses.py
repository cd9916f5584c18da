import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featuretl._learning.losses import binary_cross_entropy, softmax_cross_entropy, squared_hinge

LOSSES = [softmax_cross_entropy, binary_cross_entropy, squared_hinge]


def case(loss, seed, scale=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((6, 2, 4)) * scale
    target = rng.integers(0, 4, 6) if loss is softmax_cross_entropy else rng.integers(0, 2, (6, 4))
    return logits, target


@pytest.mark.parametrize(
    ("loss", "value"), [(softmax_cross_entropy, np.log(4)), (binary_cross_entropy, np.log(2))]
)
def test_cross_entropy_of_zero_logits(loss, value):
    logits, target = case(loss, 0, scale=0)
    np.testing.assert_allclose(loss(logits, target)[0], value)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(LOSSES), st.integers(0, 1000))
def test_leaves_the_derivative(loss, seed):
    logits, target = case(loss, seed)
    derivative = logits.copy()
    loss(derivative, target)
    step = 1e-6
    for column in range(4):
        moved = np.zeros(4)
        moved[column] = step
        up, down = (loss(logits + sign * moved, target)[0].sum(axis=2) for sign in (1, -1))
        np.testing.assert_allclose((up - down) / (2 * step), derivative[:, :, column], atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_keeps_the_relative_precision_of_small_losses(loss):
    exact, target = case(loss, 0)
    exact = np.abs(exact) + 12
    sign = 2 * (target[:, None] == np.arange(4)) - 1 if target.ndim == 1 else 2 * target - 1
    exact = (exact * sign[:, None, :]).astype(np.float32)
    single, double = exact.copy(), exact.astype(np.float64)
    loss_single, _ = loss(single, target)
    loss_double, _ = loss(double, target)
    np.testing.assert_allclose(loss_single, loss_double, rtol=1e-4)
    np.testing.assert_allclose(single, double, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES[:2])
def test_extreme_logits_stay_finite(loss):
    logits, target = case(loss, 0, 1e4)
    value, curvature = loss(logits, target)
    assert np.isfinite(value).all()
    assert np.isfinite(logits).all()
    assert (curvature >= 0).all()
