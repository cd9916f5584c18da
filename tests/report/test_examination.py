"""The findings of a report as DataFrames and as JSON."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from featuretl.report.examination import facts_of


def test_leaks_from_training_are_found(
    report, page_of, trained, model, photos, labels, tmp_path, path, quick
):
    leaked = tmp_path / "leaked.png"
    pixels = np.asarray(Image.open(photos[0]))
    Image.fromarray((pixels * 0.98).astype(np.uint8)).save(leaked)
    train = [photos[i] for i in trained], labels[trained]
    images = [str(leaked), photos[20]]
    found = report(model, images, ["flower", "temple"], path, train=train, threshold=0.97)
    assert [(row["first"], row["second"]) for row in found["leaks"]] == [(str(leaked), photos[0])]
    assert "leaks" in page_of(path).ids
    assert found["learning_curve"]["measured_on"] == "these images, over 5 draws of training images"
    assert found["trained_on"] == 0
    again = report(model, photos, labels, path, train=train)
    assert again["trained_on"] == 16


def test_all_intervals_of_a_report_know_groups(report, embeddings, photos, labels, path, quick):
    y = labels.copy()
    y[::5] = y[1::5]
    alone, together = (
        report(embeddings, photos, y, path, groups=of)["intervals"]
        for of in (np.arange(24), np.arange(24) % 6)
    )
    for score in ("accuracy", "f1_macro"):
        assert 0 <= alone[score][0] < alone[score][1] <= 1
        assert together[score] != alone[score]
    assert "calibration_error" not in alone


@pytest.fixture(scope="module")
def noisy():
    """Embeddings (40, 5) of two classes that overlap, and their labels."""
    y = np.arange(40) % 2
    return np.random.default_rng(0).normal(size=(40, 5)) + y[:, None], np.array(["a", "b"])[y]


def test_confusions_are_counted_in_descending_order(examined, noisy):
    X, y = noisy
    found = examined(X, y)
    wrong = found.subject.predicted != y
    assert wrong.sum() == found.confusions["images"].sum() == len(found.mistakes) > 0
    assert found.confusions["images"].is_monotonic_decreasing
    assert (found.confusions["label"] != found.confusions["prediction"]).all()
    assert wrong[found.mistakes["index"]].all()
    assert found.mistakes["confidence"].is_monotonic_decreasing


def test_pairs_with_different_labels_come_first(examined, noisy):
    X, y = noisy
    like = np.concatenate([X, X * 1.0001])
    labels = np.concatenate([y, [*y[:38], "b", "a"]])
    found = examined(like, labels)
    same = found.duplicates["same_label"].to_numpy()
    assert (~same[:2]).all() and same[2:].all() and len(same) >= 40
    fold = found.subject.held_out.fold
    pairs = found.duplicates[["first", "second"]].to_numpy()
    assert found.across_folds == (fold[pairs[:, 0]] != fold[pairs[:, 1]]).sum()


def test_the_largest_residuals_come_first(examined):
    X = np.random.default_rng(0).normal(size=(130, 4))
    found = examined(X, X[:, 0] ** 2, is_regression=True)
    assert len(found.mistakes) == 100
    assert found.mistakes["error"].abs().is_monotonic_decreasing
    errors = np.abs(found.subject.predicted - found.subject.y)
    assert found.mistakes["index"].iloc[0] == errors.argmax()
    assert found.per_class is found.confusions is found.label_errors is None


def test_facts_have_names_for_positions_and_none_for_nan(examined, noisy):
    X, y = noisy
    found = examined(X, y)
    facts = facts_of(found)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    first = found.mistakes["index"].iloc[0]
    assert facts["mistakes"][0]["image"] == found.subject.names[first]
    assert (facts["leaks"], facts["trained_on"]) == (None, None)
    assert facts["learning_curve"]["sizes"] == found.curve.sizes.tolist()


@pytest.mark.filterwarnings("error:Mean of empty slice")
def test_a_learning_curve_without_a_score_is_none(examined):
    found = examined(np.eye(3), [0.1, 0.3, 0.2], is_regression=True)
    assert found.curve is None
    assert facts_of(found)["learning_curve"] is None


def test_two_photographs_of_a_regression_are_reported(embedder, photos, report, path, quick):
    model = make_pipeline(embedder, Ridge()).fit(photos[:9], np.arange(9.0))
    found = report(model, photos[9:11], [9.0, 10.0], path)
    assert (found["scored"], found["learning_curve"]) == (2, None)
    assert "two training images" in found["warnings"][-1]
