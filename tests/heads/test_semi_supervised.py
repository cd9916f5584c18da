"""SemiSupervisedProbeClassifier: rows without a label help, or are left out; all marks mean the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, SemiSupervisedProbeClassifier, load_model, save_model
from featuretl.exceptions import InputError, ParameterError


@parametrize_with_checks(
    [SemiSupervisedProbeClassifier()],
    expected_failed_checks=lambda _: {
        "check_classifiers_classes": "its -1 is a class; here, no label"
    },
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits, their classes, and the same with 3 labels per class and -1 for the others."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    known = np.full(len(y), -1)
    for digit in range(10):
        rows = np.flatnonzero(y == digit)[:3]
        known[rows] = digit
    return X, y, known


def test_unlabelled_rows_help(digits):
    X, y, known = digits
    pool, rest = slice(0, 1200), slice(1200, None)
    labelled = known[pool] >= 0
    head = SemiSupervisedProbeClassifier(random_state=0).fit(X[pool], known[pool])
    alone = LinearProbeClassifier().fit(X[pool][labelled], y[pool][labelled])
    assert head.decision_.startswith("Spread labels are learnt")
    assert head.score(X[rest], y[rest]) > alone.score(X[rest], y[rest]) + 0.1
    assert (head.transduction_[labelled] == y[pool][labelled]).all()
    assert (head.transduction_ == y[pool]).mean() > 0.85


def test_spread_labels_that_are_wrong_are_left_out(digits):
    """Where neighbours say nothing about the class, the probe is that of the labels, and says so."""
    rng = np.random.default_rng(0)
    X = StandardScaler().fit_transform(rng.standard_normal((400, 40)))
    y = (X @ rng.standard_normal(40) > 0).astype(int)
    known = np.where(np.arange(400) < 240, y, -1)
    head = SemiSupervisedProbeClassifier(random_state=0).fit(X, known)
    assert head.decision_.startswith("Spread labels are not learnt")
    same = LogisticRegression(C=0.03, tol=1e-8).fit(X[:240], y[:240])
    np.testing.assert_allclose(head.predict_proba(X), same.predict_proba(X), atol=5e-3)


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
    assert "All rows have a label" in head.decision_
    alone = LinearProbeClassifier().fit(X[:200], y[:200])
    np.testing.assert_array_equal(head.predict(X), alone.predict(X))


def test_a_model_file_predicts_the_same_bits(digits, tmp_path):
    X, _, known = digits
    head = SemiSupervisedProbeClassifier(random_state=0).fit(X[:300], known[:300])
    save_model(head, tmp_path / "head.featuretl")
    loaded = load_model(tmp_path / "head.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    assert loaded.decision_ == head.decision_


@pytest.mark.parametrize(
    "parameters", [{"C": 0}, {"n_neighbors": 0}, {"alpha": 1}, {"alpha": 0}, {"cv": 1}]
)
def test_parameters_out_of_range_are_refused(digits, parameters):
    X, _, known = digits
    with pytest.raises(ParameterError, match=next(iter(parameters))):
        SemiSupervisedProbeClassifier(**parameters).fit(X, known)


def test_labels_that_are_none_are_refused(digits):
    X, _, known = digits
    with pytest.raises(InputError, match="must have labels"):
        SemiSupervisedProbeClassifier().fit(X, np.full(len(X), -1))
    with pytest.raises(InputError, match="2 classes"):
        SemiSupervisedProbeClassifier().fit(X, np.where(known == 3, 3, -1))
    with pytest.raises(InputError, match="one entry per row"):
        SemiSupervisedProbeClassifier().fit(X, known[:-1])
