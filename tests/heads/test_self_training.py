"""SelfTrainingProbeClassifier: takes on what it is sure of, as many of every class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier
from featuretl.exceptions import InputError, ParameterError
from featuretl.heads import SelfTrainingProbeClassifier


@parametrize_with_checks(
    [SelfTrainingProbeClassifier()],
    expected_failed_checks=lambda _: {
        "check_classifiers_classes": "its -1 is a class; here, no label"
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits, their classes, and the same with 8 labels per class and -1 for the others."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    known = np.full(len(y), -1)
    for digit in range(10):
        known[np.flatnonzero(y == digit)[:8]] = digit
    return X, y, known


def test_unlabelled_rows_help_and_classes_stay_balanced(digits):
    X, y, known = digits
    pool, rest = slice(0, 1200), slice(1200, None)
    labelled = known[pool] >= 0
    head = SelfTrainingProbeClassifier(random_state=0).fit(X[pool], known[pool])
    alone = LinearProbeClassifier().fit(X[pool][labelled], y[pool][labelled])
    assert head.score(X[rest], y[rest]) > alone.score(X[rest], y[rest]) + 0.005
    assert not head.taken_[labelled].any()
    counts = np.bincount(y[pool][head.taken_], minlength=10)
    assert counts.sum() > 100
    assert counts.max() <= 4 * counts.min()


def test_the_threshold_is_calibrated(digits):
    X, _, known = digits
    X, known = X[:600], known[:600]
    strict = SelfTrainingProbeClassifier(precision=1.0, random_state=0).fit(X, known)
    loose = SelfTrainingProbeClassifier(precision=0.5, random_state=0).fit(X, known)
    assert loose.threshold_ < strict.threshold_
    noise = np.random.default_rng(0).standard_normal((300, 20))
    known = np.where(np.arange(300) < 60, np.arange(300) % 3, -1)
    head = SelfTrainingProbeClassifier(precision=1.0, random_state=0).fit(noise, known)
    if head.threshold_ == np.inf:
        assert not head.taken_.any()
    assert SelfTrainingProbeClassifier().fit(X[:20], [0, 1] + [-1] * 18).threshold_ == 0.9


def test_what_is_taken_is_as_precise_as_asked():
    precisions, counts = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = rng.integers(4, size=400)
        X = 0.5 * np.random.default_rng(1).normal(size=(4, 20))[y] + rng.normal(size=(400, 20))
        known = np.where(np.arange(400) < 80, y, -1)
        head = SelfTrainingProbeClassifier(random_state=0).fit(X, known)
        taken = head.taken_
        counts.append(taken.sum())
        if taken.any():
            precisions.append((head.predict(X[taken]) == y[taken]).mean())
    assert np.mean(counts) > 60
    assert np.mean(precisions) > 0.84


def test_all_labels_given_is_the_probe(digits):
    X, y, _ = digits
    head = SelfTrainingProbeClassifier().fit(X[:300], y[:300])
    alone = LinearProbeClassifier().fit(X[:300], y[:300])
    np.testing.assert_array_equal(head.predict_proba(X), alone.predict_proba(X))


def test_names_of_classes_and_marks(digits):
    X, _, known = digits
    X, known = X[:400], known[:400]
    expected = SelfTrainingProbeClassifier(random_state=0).fit(X, known).predict(X)
    names = np.array([f"digit {k}" if k >= 0 else None for k in known], object)
    found = SelfTrainingProbeClassifier(random_state=0).fit(X, names).predict(X)
    assert found.tolist() == [f"digit {k}" for k in expected]


@pytest.mark.parametrize(
    "parameters", [{"C": 0}, {"precision": 0}, {"precision": 1.1}, {"rounds": 0}, {"cv": 1}]
)
def test_parameters_out_of_range_are_refused(digits, parameters):
    X, _, known = digits
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        SelfTrainingProbeClassifier(**parameters).fit(X, known)


def test_no_labels_are_refused(digits):
    X, _, known = digits
    with pytest.raises(InputError, match="must have labels"):
        SelfTrainingProbeClassifier().fit(X, np.full(len(X), -1))
    with pytest.raises(InputError, match="one entry per row"):
        SelfTrainingProbeClassifier().fit(X, known[:-1])
