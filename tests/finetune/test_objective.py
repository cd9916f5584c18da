"""Objective: losses, weights and scores of the three kinds of targets, computed by hand."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax

from featuretl.finetune.objective import Objective, Problem

OUTPUTS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
TARGETS = {
    "softmax": np.array([0, 1, 2, 0, 1, 2]),
    "binary": np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]]),
    "squared": np.random.default_rng(1).standard_normal((6, 3)),
}
ROWS = np.array([5, 0, 3, 4])


def objective(kind, weight=None):
    weight = np.arange(1.0, 7.0) if weight is None else weight
    problem = Problem(kind, TARGETS[kind], weight, 3, None, None)
    return Objective(problem, torch.device("cpu"))


def losses_of(kind, outputs, target):
    """Losses (k, 1), or (k, labels)."""
    if kind == "softmax":
        return -log_softmax(outputs, axis=1)[np.arange(len(target)), target][:, None]
    if kind == "binary":
        return -np.log(np.where(target, expit(outputs), expit(-outputs)))
    return np.square(outputs - target).mean(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", TARGETS)
def test_losses_are_weighted_relative_to_the_mean_weight(kind):
    weight = np.arange(1.0, 7.0)
    expected = losses_of(kind, OUTPUTS[ROWS], TARGETS[kind][ROWS]) * weight[ROWS, None] / 3.5
    outputs = torch.from_numpy(OUTPUTS[ROWS])
    found = objective(kind).held_out_losses(outputs, ROWS)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.mean(axis=1), rtol=1e-5)
    assert float(objective(kind).loss(outputs, ROWS)) == pytest.approx(expected.mean(), rel=1e-5)
    again = objective(kind, 10 * weight).held_out_losses(outputs, ROWS)
    np.testing.assert_allclose(again, found, rtol=1e-6)


def test_labels_may_have_weights_of_their_own():
    weight = np.random.default_rng(2).uniform(size=(6, 3))
    task = objective("binary", weight)
    relative = weight[ROWS] / weight.mean()
    np.testing.assert_allclose(task.weights(ROWS), relative.mean(axis=1), rtol=1e-6)
    expected = (losses_of("binary", OUTPUTS[ROWS], TARGETS["binary"][ROWS]) * relative).mean(axis=1)
    found = task.held_out_losses(torch.from_numpy(OUTPUTS[ROWS]), ROWS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_row_without_weight_has_no_gradient():
    weight = np.array([1.0, 0, 1, 1, 1, 1])
    outputs = torch.from_numpy(OUTPUTS[:2].copy()).requires_grad_()
    objective("softmax", weight).loss(outputs, np.array([0, 1])).backward()
    assert outputs.grad[0].abs().min() > 0
    assert not outputs.grad[1].any()


def test_losses_of_bfloat16_outputs_are_computed_in_float32():
    outputs = torch.from_numpy(OUTPUTS).bfloat16()
    loss = objective("squared").loss(outputs, np.arange(6))
    assert loss.dtype == torch.float32
    assert loss == objective("squared").loss(outputs.float(), np.arange(6))


def test_scores_are_accuracy_or_the_negative_squared_error():
    outputs = torch.tensor([[0.1, 2.0, 0.0], [1.0, -1.0, 0.5], [3.0, 1.0, 2.0]])
    rows = np.array([1, 0, 2])
    assert objective("softmax").scores(outputs, rows).tolist() == [1, 1, 0]
    binary = objective("binary").scores(outputs, rows)  # 0 is not above the threshold
    np.testing.assert_allclose(binary, [1 / 3, 2 / 3, 1])
    expected = -np.square(outputs.numpy() - TARGETS["squared"][rows]).mean(axis=1)
    np.testing.assert_allclose(objective("squared").scores(outputs, rows), expected, rtol=1e-6)
