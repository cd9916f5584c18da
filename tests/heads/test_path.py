"""The choice of C: ties, few rows, groups, copies of rows; and the path by itself."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.svm import SVMProbeClassifier

HEADS = {
    "log-loss": LinearProbeClassifier("cv", calibrate=True, random_state=0),
    "accuracy": LinearProbeClassifier("cv", scoring="accuracy", random_state=0),
    "svm": SVMProbeClassifier(random_state=0),
    "rbf": SVMProbeClassifier(kernel="rbf", gamma="scale", random_state=0),
}


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param].__class__(**HEADS[request.param].get_params())


def blobs(y, seed=0, spread=1.2, d=10):
    rng = np.random.default_rng(seed)
    means = spread * np.random.default_rng(99).standard_normal((4, d))
    return means[y] + rng.standard_normal((len(y), d))


def test_no_digit_against_the_rest_is_a_constant(head):
    X, y = load_digits(return_X_y=True)
    accuracies = []
    for digit in range(10):
        head.fit(X[:300], y[:300] == digit)
        assert head.predict(X[300:]).any()
        accuracies.append(head.score(X[300:], y[300:] == digit))
    assert np.mean(accuracies) > 0.96


def test_of_machines_that_are_as_right_none_that_always_says_the_same():
    # One of ten rows has class 1; models that find some of these also have false positives.
    rng = np.random.default_rng(5)
    y = (np.arange(100) % 10 == 0).astype(int)
    X = rng.standard_normal((100, 3)) + 1.2 * y[:, None]
    for scoring in ("accuracy", "log_loss"):
        head = LinearProbeClassifier("cv", scoring=scoring, random_state=0).fit(X, y)
        assert head.C_ > 1e-3


@pytest.mark.parametrize("seed", range(2))
def test_a_class_in_a_single_group_does_not_decide(head, seed):
    y = np.random.default_rng(seed).integers(0, 4, 300)
    groups = np.random.default_rng(seed).integers(0, 12, 300)
    groups[y == 3] = 99
    test = np.arange(800) % 4
    alone = head.fit(blobs(y, seed), y).score(blobs(test, 7), test)
    with pytest.warns(FeatureTLWarning, match="single group") as caught:
        head.fit(blobs(y, seed), y, groups=groups)
    assert len(caught) == 1
    assert head.C_ > 1e-4
    assert head.score(blobs(test, 7), test) > alone - 0.02
    if hasattr(head, "calibration_"):
        assert head.calibration_.temperature < 2
        assert head.calibration_.error_after < 0.1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("held", [1, 2])
def test_a_class_in_one_or_two_of_twelve_groups(head, held, seed):
    groups = np.arange(120) % 12
    y = (groups < held).astype(int)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        head.fit(blobs(y, seed), y, groups=groups)
    assert len(caught) == (held == 1)
    test = np.arange(400) % 2
    assert head.score(blobs(test, 7), test) > 0.85
    if held == 1:
        assert "class 0" in str(caught[0].message)


def test_splitters_have_the_same_protections(head):
    y, groups = np.arange(120) % 3, np.arange(120) // 3 % 6
    groups[y == 2] = 9
    head.set_params(cv=LeaveOneGroupOut())
    with pytest.warns(FeatureTLWarning, match="split"):
        head.fit(blobs(y), y, groups=groups)
    assert head.score(blobs(y, 1), y) > 0.9
    with pytest.raises(InputError, match=r"cv of .*class 0"):
        head.fit(blobs(y % 2), y % 2, groups=np.where(y % 2, 9, groups))


def test_a_fold_whose_rows_weigh_nothing_does_not_count(head):
    y, groups = np.arange(120) % 3, np.arange(120) % 5
    weight = np.where(groups == 2, 0.0, 1.0)
    for cv in (5, GroupKFold(5)):
        with_rows = head.set_params(cv=cv)
        if cv == 5:
            with pytest.warns(FeatureTLWarning, match="4 folds"):
                with_rows.fit(blobs(y), y, sample_weight=weight, groups=groups)
        else:
            with_rows.fit(blobs(y), y, sample_weight=weight, groups=groups)
        assert head.path_.accuracy.shape[1] == 4
        assert np.isfinite(head.path_.accuracy).all()
        assert head.score(blobs(y, 1), y) > 0.9


def test_equal_rows_do_not_help_noise_to_be_learnt(head):
    X = np.random.default_rng(0).standard_normal((60, 40))
    coin = np.random.default_rng(1).integers(0, 2, 120)
    head.fit(np.vstack([X, X]), coin)
    assert head.path_.accuracy.mean(axis=1).max() < 0.65
