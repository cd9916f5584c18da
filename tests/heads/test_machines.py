"""The machines of SVMProbeClassifier, without the estimator around them."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from featuretl._learning.rows import Rows, Workers
from featuretl.heads._solver.machines import Exact, Linear, Nystrom, TrainingSet


def training_set(X, y, weight=None, fold=None):
    weight = np.ones(len(y)) if weight is None else weight
    fold = np.full(len(y), -1) if fold is None else fold
    rows = Rows(X, weight, Workers(), "floored")
    return TrainingSet(rows, y, int(y.max()) + 1, weight, fold)


@pytest.fixture
def blobs():
    """Sixty rows of three classes, around means of their own."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return 3 * np.eye(3, 5)[y] + rng.standard_normal((60, 5)) + 2, y


def machines(n=60):
    return [Linear(1e-8), Nystrom(1e-8, 0.1, n, 0), Exact(1e-8, 0.1)]


def test_accuracy_counts_held_out_rows_by_their_weights():
    y, fold = np.array([0, 1, 1, 0, 1]), np.array([0, 0, 0, 1, -1])
    data = training_set(np.eye(5), y, np.array([1.0, 2.0, 1.0, 1.0, 9.0]), fold)
    scores = data.scores(np.array([[-1.0], [1.0], [-1.0], [1.0], [-1.0]]))
    assert scores["accuracy"].tolist() == [0.75, 0.0]
    assert scores["varies"].tolist() == [1.0, 1.0]


def test_a_machine_that_always_says_the_same_does_not_vary():
    y, fold = np.array([0, 1, 2, 0]), np.array([0, 0, 1, -1])
    data = training_set(np.eye(4), y, np.array([1.0, 1.0, 1.0, 0.0]), fold)
    values = np.tile([0.0, 1.0, 0.5], (4, 1))
    values[3] = [1, 0, 0]  # no fold holds this row out
    assert data.scores(values)["varies"].tolist() == [0.0, 0.0]


def test_two_classes_are_one_column_and_more_are_one_each(blobs):
    X, y = blobs
    for labels, columns in ((y, 3), (y > 0, 1)):
        data = training_set(X, labels.astype(int))
        for machine in machines():
            assert machine.fit(data, 1.0).values(X).shape == (60, columns)


def test_rows_without_weight_are_absent(blobs):
    X, y = blobs
    weight = np.where(np.arange(60) % 4 == 1, 0.0, 1.5)
    left = weight > 0
    for machine, other in zip(machines()[::2], machines()[::2], strict=True):
        found = machine.fit(training_set(X, y, weight), 1.0).values(X)
        alone = other.fit(training_set(X[left], y[left], weight[left]), 1.0).values(X)
        np.testing.assert_allclose(found, alone, atol=1e-3)


def test_a_path_has_the_best_C_and_its_held_out_values(blobs):
    X, y = blobs
    data = training_set(X, y, fold=np.arange(60) // 3 % 4)
    for machine in machines():
        path = machine.search(data, [0.01, 1.0])
        assert path.C.tolist() == [0.01, 1.0]
        assert path.accuracy.shape == (2, 4)
        best = path.C.tolist().index(path.best)
        np.testing.assert_allclose(data.scores(path.logits)["accuracy"], path.accuracy[best])
        assert path.accuracy.max() > 0.8


@pytest.mark.parametrize("others", [1, 2])
def test_a_class_that_is_not_in_training_never_wins(others, blobs):
    """With two classes left, libsvm returns one column, and with three it returns three."""
    X, y = blobs
    X, y = X[y <= others], y[y <= others]
    X, y = np.vstack([X, X[:4] + 0.1]), np.r_[y, np.full(4, others + 1)]
    fold = np.where(y == others + 1, 0, np.arange(len(y)) // (others + 1) % 2)
    path = Exact(1e-6, 0.1).search(training_set(X, y, fold=fold), [1.0])
    held_out = path.logits[fold == 0]
    assert (held_out[:, others + 1] == -1e6).all()
    assert (held_out[:, : others + 1] > -1e6).all()
    chosen = held_out.argmax(axis=1)
    known = y[fold == 0] <= others
    assert (chosen[known] == y[fold == 0][known]).mean() > 0.8


def test_the_landmarks_are_rows_and_at_most_all_of_them(blobs):
    X, y = blobs
    data = training_set(X, y)
    few, all_ = (Nystrom(1e-8, 0.1, size, 0).fit(data, 1.0) for size in (20, 500))
    assert few.coef.shape == (3, 20)
    assert all_.coef.shape == (3, 60)
    # With all rows as landmarks, the features span the kernel matrix.
    Z = (X - data.rows.mean_) / data.rows.scale_
    features = all_._map.transform(Z)
    np.testing.assert_allclose(features @ features.T, rbf_kernel(Z, gamma=0.1), atol=1e-6)
    np.testing.assert_allclose(all_.values(X), features @ all_.coef.T + all_.intercept, atol=1e-9)
