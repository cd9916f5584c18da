"""SemiSupervisedProbeClassifier: unlabelled rows help, or are not used; all marks are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, SemiSupervisedProbeClassifier, load_model, save_model
from featuretl.exceptions import InputError, ParameterError
from featuretl.heads import semi_supervised
from featuretl.heads.semi_supervised import SelfTrainer, _decision, run_rounds


@parametrize_with_checks(
    [SemiSupervisedProbeClassifier(method="spreading"), SemiSupervisedProbeClassifier()],
    expected_failed_checks=lambda _: {
        "check_classifiers_classes": "-1 is a class there, but marks a missing label here"
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def pool() -> tuple[np.ndarray, np.ndarray]:
    """Digits and their classes, in random order."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return X[order].astype(np.float32), y[order]


def with_labels(y, per_class):
    """Return the classes of the first rows of each class, and -1 for the others."""
    known = np.full(len(y), -1)
    for code in np.unique(y):
        known[np.flatnonzero(y == code)[:per_class]] = code
    return known


@pytest.fixture(scope="module")
def digits(pool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits, their classes, and the classes of 3 rows per class, -1 for the others."""
    return *pool, with_labels(pool[1], 3)


@pytest.mark.parametrize(
    ("method", "per_class", "gain"),
    [("auto", 3, 0.1), ("spreading", 3, 0.1), ("self-training", 8, 0.005)],
)
def test_unlabelled_rows_help(pool, method, per_class, gain):
    X, y, X_new, y_new = pool[0][:1200], pool[1][:1200], pool[0][1200:], pool[1][1200:]
    known = with_labels(y, per_class)
    labelled = known >= 0
    head = SemiSupervisedProbeClassifier(method=method, random_state=0).fit(X, known)
    alone = LinearProbeClassifier().fit(X[labelled], y[labelled])
    used = "spreading" if method == "auto" else method
    assert head.decision_.startswith(f"{used}: ")
    assert head.score(X_new, y_new) > alone.score(X_new, y_new) + gain
    assert (head.transduction_[labelled] == y[labelled]).all()
    assert (head.transduction_ == y).mean() > 0.85


def test_rows_without_a_label_that_mislead_are_left_out():
    """If neighbours are not informative, the head is the probe of the labels, and reports so."""
    rng = np.random.default_rng(0)
    X = StandardScaler().fit_transform(rng.standard_normal((400, 40)))
    y = (X @ rng.standard_normal(40) > 0).astype(int)
    known = np.where(np.arange(400) < 240, y, -1)
    head = SemiSupervisedProbeClassifier(random_state=0).fit(X, known)
    assert not head.decision_.startswith("spreading")
    alone = LinearProbeClassifier().fit(X[:240], y[:240])
    assert head.score(X[240:], y[240:]) > alone.score(X[240:], y[240:]) - 0.03


def test_auto_takes_the_first_of_the_most_accurate():
    codes = np.array([0, 1, 2, 3, -1])
    parts = [np.array([-1, -1, 2, 3, -1]), np.array([0, 1, -1, -1, -1])]
    right, wrong = [codes, codes], [codes, 0 * codes]
    words = "accuracy on 4 held-out labels: spreading {}, self-training {}, probe {}."
    for names, best in (
        (("spreading", "self-training", "probe"), "spreading"),
        (("self-training", "probe"), "self-training"),
        (("probe",), "probe"),
    ):
        found = {
            name: right if name in names else wrong
            for name in ("probe", "self-training", "spreading")
        }
        numbers = [
            "1.00" if name in names else "0.50" for name in ("spreading", "self-training", "probe")
        ]
        assert _decision(found, parts, codes) == (best, words.format(*numbers))


def self_trained(X, known):
    """Return the trainer after all rounds with a calibrated threshold, and the last threshold."""
    n_classes = known.max() + 1
    parts = [np.where(np.arange(len(known)) % 5 == k, -1, known) for k in range(5)]
    trainer = SelfTrainer(0.03, X, known, n_classes)
    thresholds = run_rounds([SelfTrainer(0.03, X, part, n_classes) for part in parts], known)
    for threshold in thresholds:
        trainer.refit(threshold)
    return trainer, thresholds[-1]


def test_self_training_is_precise_and_balanced_across_classes():
    precisions, counts = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = rng.integers(4, size=400)
        X = 0.5 * np.random.default_rng(1).normal(size=(4, 20))[y] + rng.normal(size=(400, 20))
        trainer, _ = self_trained(X, np.where(np.arange(400) < 80, y, -1))
        assert not trainer.added[:80].any()
        counts.append(np.bincount(y[trainer.added], minlength=4))
        if trainer.added.any():
            precisions.append((trainer.predicted == y)[trainer.added].mean())
    assert np.sum(counts, axis=1).mean() > 60
    assert np.sum(counts, axis=0).max() <= 4 * np.sum(counts, axis=0).min()
    assert np.mean(precisions) > 0.84


def test_the_threshold_is_calibrated(pool, monkeypatch):
    X, y = pool[0][:600], pool[1][:600]
    known = with_labels(y, 8)
    thresholds = {}
    for precision in (0.5, 1.0):
        monkeypatch.setattr(semi_supervised, "_PRECISION", precision)
        thresholds[precision] = self_trained(X, known)[1]
    assert thresholds[0.5] < thresholds[1.0]
    assert run_rounds([], known) == [0.9] * 5


def test_all_marks_of_no_label_mean_the_same(digits):
    X, _, known = digits
    X, known = X[:300], known[:300]
    expected = SemiSupervisedProbeClassifier(random_state=0).fit(X, known).predict(X)
    names = np.array([f"digit {k}" for k in known], object)
    for mark in (None, np.nan, "", -1):
        marked = names.copy()
        marked[known < 0] = mark
        found = SemiSupervisedProbeClassifier(random_state=0).fit(X, marked).predict(X)
        assert found.tolist() == [f"digit {k}" for k in expected]
    floats = np.where(known < 0, np.nan, known)
    found = SemiSupervisedProbeClassifier(random_state=0).fit(X, floats).predict(X)
    np.testing.assert_array_equal(found, expected)
    series = pd.Series(names).where(known >= 0)
    found = SemiSupervisedProbeClassifier(random_state=0).fit(X, series).predict(X)
    assert found.tolist() == [f"digit {k}" for k in expected]


def test_one_label_per_class_and_none_missing(digits):
    X, y, _ = digits
    known = np.full(200, -1)
    known[[np.flatnonzero(y == 0)[0], np.flatnonzero(y == 1)[0]]] = 0, 1
    head = SemiSupervisedProbeClassifier().fit(X[:200], known)
    assert "too few" in head.decision_
    head = SemiSupervisedProbeClassifier().fit(X[:200], y[:200])
    assert head.decision_ == "probe: all rows have a label."
    alone = LinearProbeClassifier().fit(X[:200], y[:200])
    np.testing.assert_array_equal(head.predict_proba(X), alone.predict_proba(X))


def test_a_model_file_predicts_the_same_bits(digits, tmp_path):
    X, _, known = digits
    head = SemiSupervisedProbeClassifier(random_state=0).fit(X[:300], known[:300])
    save_model(head, tmp_path / "head.featuretl")
    loaded = load_model(tmp_path / "head.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    assert loaded.decision_ == head.decision_


def test_a_file_of_the_former_self_training_class_is_one_of_this_head():
    path = Path(__file__).parents[1] / "formats/files/v1/models/self-training.featuretl"
    head = load_model(path)
    assert type(head) is SemiSupervisedProbeClassifier
    assert head.method == "self-training"


@pytest.mark.parametrize(
    "parameters",
    [{"C": 0}, {"n_neighbors": 0}, {"alpha": 1}, {"alpha": 0}, {"cv": 1}, {"method": "none"}],
)
def test_parameters_out_of_range_are_refused(digits, parameters):
    X, _, known = digits
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        SemiSupervisedProbeClassifier(**parameters).fit(X, known)


def test_labels_that_are_none_are_refused(digits):
    X, _, known = digits
    with pytest.raises(InputError, match="labels; got none"):
        SemiSupervisedProbeClassifier().fit(X, np.full(len(X), -1))
    with pytest.raises(InputError, match="2 classes"):
        SemiSupervisedProbeClassifier().fit(X, np.where(known == 3, 3, -1))
    with pytest.raises(InputError, match="one entry per row"):
        SemiSupervisedProbeClassifier().fit(X, known[:-1])
