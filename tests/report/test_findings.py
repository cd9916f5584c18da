"""Planted label errors and near-duplicates are found; per-class scores equal scikit-learn's."""

import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.model_selection import cross_val_predict

from featuretl.exceptions import InputError, ParameterError
from featuretl.report import class_scores, confident_mistakes, label_errors, near_duplicates


@pytest.fixture(scope="module")
def flipped():
    """600 digits, 30 of them with a wrong label, and out-of-fold probabilities."""
    digits = load_digits()
    X, y = digits.data[:600], digits.target[:600].copy()
    rows = np.random.default_rng(0).choice(600, 30, replace=False)
    y[rows] = (y[rows] + 1 + rows % 9) % 10
    return y, rows, cross_val_predict(LogisticRegression(), X / 16, y, method="predict_proba")


def test_flipped_labels_are_found(flipped):
    y, rows, proba = flipped
    found = label_errors(y, proba, np.arange(10))
    assert len(set(found["index"]) & set(rows)) >= 0.7 * len(rows)
    assert len(set(found["index"]) & set(rows)) >= 0.6 * len(found)
    assert set(found["index"][:10]) <= set(rows)
    assert (found["label"].to_numpy() == y[found["index"]]).all()
    right = load_digits().target[:600]
    suggested = found[found["index"].isin(rows)]
    agree = suggested["suggestion"].to_numpy() == right[suggested["index"]]
    assert agree.mean() > 0.9


def test_what_was_never_held_out_is_not_suspected(flipped):
    y, _, proba = flipped
    proba = proba.copy()
    first = int(label_errors(y, proba, np.arange(10))["index"][0])
    proba[first] = np.nan
    assert first not in set(label_errors(y, proba, np.arange(10))["index"])
    assert first not in set(confident_mistakes(y, proba, np.arange(10))["index"])


def test_a_class_without_images_is_not_suggested():
    proba = np.array([[0.1, 0.2, 0.7], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1]])
    assert label_errors([0, 0, 1], proba, [0, 1, 2]).empty


def test_mistakes_come_by_confidence():
    found = confident_mistakes(["b", "a", "a"], [[0.6, 0.4], [0.1, 0.9], [1, 0]], ["a", "b"])
    assert found["index"].tolist() == [1, 0]
    assert found["prediction"].tolist() == ["b", "a"]
    assert found["confidence"].tolist() == [0.9, 0.6]


@pytest.mark.parametrize("function", [label_errors, confident_mistakes])
def test_labels_and_probabilities_must_belong_together(function):
    with pytest.raises(InputError, match=r"proba must have .* \(2, 2\); got \(1, 2\)"):
        function(["a", "b"], [[1, 0]], ["a", "b"])
    with pytest.raises(InputError, match="1 classes that classes lacks, such as 'c'"):
        function(["a", "c"], [[1, 0], [0, 1]], ["a", "b"])


def test_copies_of_photographs_are_found(pixels, embedder):
    """A darker, recompressed copy is a near-duplicate; another part of the photograph is not."""
    corners = [(top, left) for top in (0, 140, 280) for left in (0, 220, 430)]
    tiles = [pixels[top : top + 140, left : left + 200] for top, left in corners]
    copies = [jpeg((tile * 0.9).astype(np.uint8)) for tile in tiles]
    X = embedder.transform([*tiles, *copies])
    found = near_duplicates(X, threshold=0.8)
    pairs = sorted(zip(found["first"], found["second"], strict=True))
    assert pairs == [(i, i + 9) for i in range(9)]
    leaks = near_duplicates(X[9:], X[:9], threshold=0.8)
    assert sorted(zip(leaks["first"], leaks["second"], strict=True)) == [(i, i) for i in range(9)]
    assert near_duplicates(X, threshold=1.0).empty


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_the_most_similar_come_first_and_each_pair_once():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 32))
    X[50:60] = X[7]
    X[1] = X[0] + 0.1 * rng.normal(size=32)
    found = near_duplicates(X)
    assert found["similarity"].is_monotonic_decreasing
    assert found["similarity"].max() <= 1
    assert (found["first"] < found["second"]).all()
    assert not found.duplicated(["first", "second"]).any()
    touched = set(found["first"]) | set(found["second"])
    assert touched == {0, 1, 7, *range(50, 60)}


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images_have_no_duplicates(n):
    X = np.eye(max(n, 1), 4)[:n]
    assert near_duplicates(X).empty
    assert near_duplicates(X, X[:0]).empty


def test_memory_does_not_grow_with_the_square():
    X = np.random.default_rng(0).normal(size=(8_000, 8)).astype(np.float32)
    tracemalloc.start()
    near_duplicates(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all similarities would take 256 MB


def test_a_suggestion_is_more_probable_than_the_label():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4) / 2, 400)
    y = np.array([rng.choice(4, p=row) for row in proba])
    y[:150] = 3  # the threshold of class 3 is low
    found = label_errors(y, proba, range(4))
    assert len(found) > 20
    assert (found["suggested_probability"] > found["probability"]).all()
    # The thresholds are 0.8 of "a" and 0.05 of "b". Row 0 has 0.6 for "a", below its threshold,
    # and 0.4 for "b", which is less probable than its label.
    y, proba = ["a", "a", "b", "b"], [[0.6, 0.4], [1, 0], [0.95, 0.05], [0.95, 0.05]]
    assert 0 not in label_errors(y, proba, ["a", "b"])["index"].tolist()


def test_the_threshold_is_checked():
    with pytest.raises(ParameterError, match="'threshold' parameter of near_duplicates"):
        near_duplicates(np.eye(3), threshold=0)


def test_scores_of_classes_are_scikit_learns(flipped):
    y, _, proba = flipped
    predicted = proba.argmax(axis=1)
    frame = class_scores(y, predicted)
    expected = precision_recall_fscore_support(y, predicted)
    for score, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        np.testing.assert_allclose(frame[score], values)
        if score != "images":
            assert (frame[f"{score}_low"] < frame[score]).all()
            assert (frame[f"{score}_high"] > frame[score]).all()


def test_intervals_know_of_groups():
    y = np.repeat(["a", "b"], 40)
    predicted = y.copy()
    predicted[:8] = "b"
    alone = class_scores(y, predicted)
    together = class_scores(y, predicted, groups=np.arange(80) // 8)
    width = lambda frame: frame["recall_high"][0] - frame["recall_low"][0]  # noqa: E731
    assert width(together) > 1.5 * width(alone)
    assert class_scores(y, y)["recall_low"].between(0.8, 0.99).all()


def test_a_class_that_does_not_occur_has_no_score():
    frame = class_scores(["a", "b"], ["a", "a"], ["a", "b", "c"]).set_index("class")
    assert np.isnan(frame.loc["c", ["precision", "recall", "f1"]].astype(float)).all()
    assert np.isnan(frame.loc["b", "precision"])
    assert frame.loc["b", "recall"] == 0


def test_classes_are_the_sorted_labels_unless_given():
    y = ["cat", "cat", "cat", "dog", "dog"]
    proba = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    for function in (label_errors, confident_mistakes):
        pd.testing.assert_frame_equal(function(y, proba), function(y, proba, ["cat", "dog"]))
        with pytest.raises(InputError, match="classes="):
            function(y[:3], proba[:3])
