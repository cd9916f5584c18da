"""Layers have the values of the transformers and kernels that they stand for."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import normalize
from sklearn.svm import SVC
from torch import nn

from featuretl.networks.layers import RBF, Affine, Nearness, Normalise, Votes, float64, fused

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
ROWS = torch.from_numpy(X)
SCALE = Affine(RNG.normal(size=4), RNG.normal(size=4))
SQUARE = Affine(RNG.normal(size=(4, 4)), RNG.normal(size=4))
NARROW = Affine(RNG.normal(size=(3, 4)), RNG.normal(size=3))


@pytest.mark.parametrize("first", [SCALE, SQUARE])
@pytest.mark.parametrize("second", [SCALE, NARROW])
def test_two_affine_layers_are_one(first, second):
    torch.testing.assert_close(first.then(second)(ROWS), second(first(ROWS)))
    assert first.then(second).weight.dtype == torch.float64


def test_adjacent_affine_layers_are_fused_before_they_are_rounded():
    last = Affine(NARROW.weight, NARROW.bias)
    expected = last(Normalise()(SQUARE(SCALE(ROWS))))
    layers = fused([SCALE, SQUARE, Normalise(), last])
    assert [type(layer) for layer in layers] == [Affine, Normalise, Affine]
    tensors = [*layers.parameters(), *layers.buffers()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not layers.training
    torch.testing.assert_close(layers(ROWS.float()), expected.float(), rtol=1e-5, atol=1e-5)


def test_no_layers_are_the_identity():
    assert fused([])(ROWS) is ROWS


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_rows_have_length_one_but_for_rows_of_zeros(norm):
    rows = np.vstack([X, np.zeros(4)])
    np.testing.assert_allclose(Normalise(norm)(torch.from_numpy(rows)), normalize(rows, norm))


def test_a_kernel_is_that_of_scikit_learn_and_at_most_one():
    found = RBF(X[:5], 0.3)(ROWS)
    np.testing.assert_allclose(found, rbf_kernel(X, X[:5], gamma=0.3))
    far = torch.full((1, 4), 1e4, dtype=torch.float32)  # cancellation must not exceed 1
    assert RBF(far + 0.1, 1.0).float()(far).max() <= 1


def test_a_class_without_a_mean_is_infinitely_far():
    means = np.vstack([X[:2], np.full(4, np.nan)])
    found = Nearness(means, [True, True, False])(ROWS).numpy()
    expected = -np.square(X[:, None] - X[:2]).sum(axis=2)
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-12)
    assert (found[:, 2] == -np.inf).all()


@pytest.mark.parametrize("n_classes", [3, 5])
def test_votes_are_those_of_svc(n_classes):
    y = np.arange(20) % n_classes
    model = SVC(decision_function_shape="ovo").fit(X, y)
    pairs = torch.from_numpy(model.decision_function(X))
    found = Votes(n_classes)(pairs)
    model.decision_function_shape = "ovr"
    np.testing.assert_allclose(found, model.decision_function(X))


def test_float64_copies_arrays_and_detaches_parameters():
    values = np.ones(2, np.float32)
    tensor = float64(values)
    values[0] = 5
    assert (tensor.dtype, tensor.tolist()) == (torch.float64, [1, 1])
    assert not float64(nn.Parameter(torch.ones(2))).requires_grad
