"""Scores of embeddings by cross-validated heads, and the influence of each image on them."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, scale

from featuretl import LinearProbeRegressor
from featuretl.ranking import log_me
from featuretl.ranking.methods import METHODS, FoldedTargets, score_of

X, Y = load_wine(return_X_y=True)
X = scale(X[::3]).astype(np.float32)  # 60 rows
Y = Y[::3]
ROWS = np.arange(60)
VALUES = np.column_stack([X[:, 0] + X[:, 1] ** 2, np.ones(60)]).astype(np.float64)


def folded(y, fold=ROWS % 3):
    return FoldedTargets(y, fold, ROWS)


def splits_of(fold):
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]


def test_neighbours_have_the_accuracy_of_scikit_learn():
    model = make_pipeline(Normalizer(), KNeighborsClassifier())
    predicted = cross_val_predict(model, X, Y, cv=splits_of(ROWS % 3))
    found = score_of("knn", X, folded(Y))
    assert found.value == np.mean(predicted == Y)
    np.testing.assert_allclose(found.influence, ((predicted == Y) - found.value) / 60)


def test_log_me_is_the_public_function():
    assert score_of("logme", X, folded(Y)).value == log_me(X, Y)


def test_images_that_are_never_held_out_are_trained_on_only():
    fold = np.where(ROWS < 10, -1, ROWS % 2)
    for y in (Y, VALUES):
        found = score_of("knn", X, folded(y, fold))
        assert (found.influence[:10] == 0).all()
        assert found.influence[10:].any()
    changed = VALUES.copy()
    changed[:10] += 100
    assert score_of("knn", X, folded(changed, fold)).value < found.value


def test_r2_is_the_mean_over_outputs_and_zero_for_a_constant_one():
    fold = ROWS % 3
    predicted = cross_val_predict(LinearProbeRegressor(), X, VALUES[:, 0], cv=splits_of(fold))
    alone = score_of("probe", X, folded(VALUES[:, :1]))
    assert alone.value == pytest.approx(r2_score(VALUES[:, 0], predicted), rel=1e-4)
    both = score_of("probe", X, folded(VALUES))
    assert both.value == pytest.approx(alone.value / 2, rel=1e-2)


def test_the_influence_is_the_derivative_by_the_weight_of_an_image():
    y = np.column_stack([VALUES[:, 0], X[:, 2]])
    model = make_pipeline(Normalizer(), KNeighborsRegressor())
    predicted = cross_val_predict(model, X, y, cv=splits_of(ROWS % 3))
    found = score_of("knn", X, folded(y))
    assert found.value == pytest.approx(r2_score(y, predicted))
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)
    for row in (0, 59):
        up, down = (
            r2_score(y, predicted, sample_weight=1 + e * (ROWS == row)) for e in (1e-5, -1e-5)
        )
        assert (up - down) / 2e-5 == pytest.approx(found.influence[row], rel=1e-3, abs=1e-7)


def test_a_training_set_of_one_class_predicts_it():
    y = ROWS % 2
    assert score_of("probe", X, folded(y, fold=y)).value == 0  # each fold holds the other class


@pytest.mark.parametrize("method", METHODS)
def test_a_subset_has_codes_of_its_own(method):
    rows = np.flatnonzero(Y != 1)
    part = folded(Y).subset(rows)
    assert set(part.y) == {0, 1}
    assert part.groups.tolist() == list(range(len(rows)))
    assert part.fold.tolist() == (rows % 3).tolist()
    assert 0.8 < score_of(method, X[rows], part).value <= 1 or method == "logme"
    numbers = folded(VALUES).subset(rows)
    assert numbers.is_regression
    np.testing.assert_array_equal(numbers.y, VALUES[rows])
