"""Out-of-fold predictions and learning curves of a linear probe."""

import numpy as np
import pytest

from featuretl import LinearProbeClassifier, LinearProbeRegressor
from featuretl.exceptions import InputError
from featuretl.report.probe import Probe, splits_of


def test_copies_share_a_fold_and_are_counted(report, page_of, embeddings, photos, path, quick):
    twice, coin = [*range(24), *range(24)], np.random.default_rng(0).integers(0, 2, 48).astype(str)
    found = report(embeddings[twice], [photos[i] for i in twice], coin, path, cv=5)
    assert found["scores"]["accuracy"] < 0.7
    assert found["near_duplicates_across_folds"] == 0
    assert "24 of these 48 images are copies of others" in found["warnings"][0]
    assert "copies share a fold" in page_of(path).text


def test_a_class_in_a_single_group_is_not_called_wrong(report, photos, path, quick):
    y = np.arange(160) % 4
    X = np.random.default_rng(0).normal(size=(160, 8)) + 4 * np.eye(8)[y]
    groups = np.where(y == 3, 99, np.arange(160) // 4 % 10)
    found = report(
        X, [photos[i % 24] for i in range(160)], y.astype(str), path, groups=groups, cv=5
    )
    assert found["scored"] == 120
    assert found["scores"]["accuracy"] > 0.95
    assert len(found["label_errors"]) < 5
    assert "never holds out 1 classes that lie in a single group" in found["scores_are"]


def test_embeddings_are_judged_out_of_fold(
    report, page_of, embeddings, photos, labels, path, quick
):
    wrong = labels.copy()
    wrong[2] = "temple"
    found = report(embeddings, photos, wrong, path)
    assert found["scored"] == 24
    assert found["mistakes"][0]["image"] == photos[2]
    assert found["label_errors"][0]["image"] == photos[2]
    assert found["label_errors"][0]["suggestion"] == "flower"
    assert found["learning_curve"]["sizes"] == [1, 2, 6]
    assert "out-of-fold" in page_of(path).text
    twice = [*range(24), *range(24)]
    like = embeddings[twice] * np.repeat([1, 1.001], 24)[:, None]
    found = report(like, [photos[i] for i in twice], labels[twice], path)
    assert found["near_duplicates_across_folds"] > 0
    assert not found["warnings"]
    groups = np.tile(np.arange(24), 2)
    found = report(
        like, [photos[i] for i in twice], labels[twice], path, groups=groups,
        threshold=0.999,
    )  # fmt: skip
    assert len(found["near_duplicates"]) == 24
    assert found["near_duplicates_across_folds"] == 0


@pytest.fixture(scope="module")
def blobs():
    """60 rows around three centres, with a regression target."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (rng.normal(size=(60, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    return X, y, X[:, 0] + 0.1 * rng.normal(size=60)


def test_every_row_is_predicted_by_a_probe_of_the_other_folds(blobs):
    X, y, target = blobs
    held = Probe(X, y, np.unique(y), None).out_of_fold(4, 0)
    assert np.unique(held.fold).tolist() == [0, 1, 2, 3] and held.ok.all()
    train, test = next(splits_of(held.fold))
    head = LinearProbeClassifier().fit(X[train], y[train])
    np.testing.assert_allclose(held.proba[test], head.predict_proba(X[test]))
    np.testing.assert_array_equal(held.predicted, held.proba.argmax(axis=1))
    numbers = Probe(X, target, None, None).out_of_fold(4, 0)
    assert numbers.proba is None
    train, test = next(splits_of(numbers.fold))
    head = LinearProbeRegressor().fit(X[train], target[train])
    np.testing.assert_allclose(numbers.predicted[test], head.predict(X[test]))


def test_rows_of_no_fold_are_always_trained_on():
    splits = list(splits_of(np.array([0, -1, 1, 0])))
    assert [train.tolist() for train, _ in splits] == [[1, 2], [0, 1, 3]]
    assert [test.tolist() for _, test in splits] == [[0, 3], [2]]


def test_a_class_without_training_rows_has_probability_0(blobs):
    X, y, _ = blobs
    groups = np.where(y == 2, 99, np.arange(60) // 6)  # class 2 is in a single group
    held = Probe(X, y, np.unique(y), groups).out_of_fold(4, 0)
    assert not held.ok[y == 2].any() and held.ok[y < 2].all()
    assert np.isnan(held.proba[y == 2]).all()
    two = np.array(["a", "b"])
    probe = Probe(X[:3], np.array(["b"] * 3), two, None)
    np.testing.assert_array_equal(probe._proba(np.arange(3), np.arange(2), two), [[0, 1]] * 2)


@pytest.mark.parametrize("n, groups", [(2, None), (3, [0, 0, 1])])
def test_a_regression_of_two_or_three_images_has_no_folds(n, groups, blobs):
    X, _, target = blobs
    groups = None if groups is None else np.array(groups)
    with pytest.raises(InputError, match="two training images"):
        Probe(X[:n], target[:n], None, groups).out_of_fold(5, 0)


def test_one_class_has_no_folds(blobs):
    with pytest.raises(InputError, match="two classes"):
        Probe(blobs[0], np.zeros(60), np.zeros(1), None).out_of_fold(5, 0)


def test_a_learning_curve_ends_with_all_training_rows(blobs):
    X, y, target = blobs
    splits = [(np.arange(45), np.arange(45, 60)), (np.arange(15, 60), np.arange(15))]
    curve = Probe(X, y, np.unique(y), None).learning_curve(splits, "two folds", 0)
    assert curve.sizes.tolist() == [1, 2, 5, 10, 15]  # of every class
    assert (curve.score_name, curve.how) == ("accuracy", "two folds")
    head = LinearProbeClassifier().fit(X[:45], y[:45])
    assert curve.test[-1, 0] == head.score(X[45:], y[45:])
    again = Probe(X, y, np.unique(y), None).learning_curve(splits, "two folds", 0)
    np.testing.assert_array_equal(curve.test, again.test)
    numbers = Probe(X, target, None, None).learning_curve(splits, "", 0)
    assert (numbers.sizes.tolist(), numbers.score_name) == ([10, 20, 45], "R2")
    assert numbers.test[-1].min() > 0.9


@pytest.mark.filterwarnings("error")
def test_scores_that_are_not_defined_are_nan(blobs):
    X, y, target = blobs
    single = Probe(X, target, None, None).learning_curve([(np.arange(20), np.array([20]))], "", 0)
    assert np.isnan(single.test).all()
    one = Probe(X, target, None, None).learning_curve([(np.array([0]), np.arange(1, 9))], "", 0)
    assert np.isnan(one.test).all()
    rows = np.flatnonzero(y == 0)
    same = Probe(X, y, np.unique(y), None).learning_curve([(rows, np.arange(60))], "", 0)
    assert np.isnan(same.test).all()
