"""Choice of C and the temperature by folds: ties, few rows, groups and copies of rows."""

import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_validate

from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.ridge import LinearProbeRegressor
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


def small_draws(n, seed):
    X, y = load_digits(n_class=2 if n < 20 else 4, return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(X))
    classes = np.unique(y)
    train = np.concatenate([order[y[order] == c][: n // len(classes)] for c in classes])
    test = np.setdiff1d(order, train)[:300]
    return X[train], y[train], X[test], y[test]


@pytest.mark.parametrize("n", [6, 12, 24])
@pytest.mark.parametrize("C", [0.03, "cv"])
def test_calibrated_on_few_rows_is_no_worse_than_uncalibrated(n, C):
    losses = []
    for seed in range(6):
        X, y, test, truth = small_draws(n, seed)
        head = LinearProbeClassifier(C, calibrate=True, cv=3, random_state=0).fit(X, y)
        assert 0.1 < head.calibration_.temperature < 3
        calibrated = log_loss(truth, head.predict_proba(test))
        losses.append(
            (calibrated, log_loss(truth, head.set_params(calibrate=False).predict_proba(test)))
        )
    calibrated, uncalibrated = np.mean(losses, axis=0)
    assert calibrated < uncalibrated + 0.01


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_machine_of_few_rows_is_as_sure_as_it_is_right(kernel):
    sure, right = [], []
    for seed in range(8):
        X, y, test, truth = small_draws(16, seed)
        head = SVMProbeClassifier(kernel=kernel, gamma="scale", random_state=0).fit(X, y)
        sure.append(head.predict_proba(test).max(axis=1).mean())
        right.append(head.score(test, truth))
    assert np.mean(right) > 0.9
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.2)


def test_alpha_is_chosen_across_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    signature = rng.standard_normal((12, 60))[groups]  # identifies the group and thus its offset
    useful = rng.standard_normal((120, 1))
    X = np.hstack([useful, signature]) + 0.1 * rng.standard_normal((120, 61))
    y = useful[:, 0] + 3 * rng.standard_normal(12)[groups]
    alone, across = (
        LinearProbeRegressor().fit(X, y),
        LinearProbeRegressor().fit(X, y, groups=groups),
    )
    assert across.alpha_ > 10 * alone.alpha_
    assert across.path_.mean_squared_error.shape == (28, 1)
    same = LinearProbeRegressor().fit(X, y, groups=np.arange(120))
    assert same.alpha_ == alone.alpha_
    with pytest.warns(FeatureTLWarning, match="single rows, because groups"):
        assert LinearProbeRegressor().fit(X, y, groups=np.ones(120)).alpha_ == alone.alpha_
    with config_context(enable_metadata_routing=True):
        routed = LinearProbeRegressor().set_fit_request(groups=True)
        options = {"cv": GroupKFold(3), "params": {"groups": groups}, "return_estimator": True}
        options["return_indices"] = True
        found = cross_validate(routed, X, y, error_score="raise", **options)
    # Two thirds of the groups are left, and the candidate alphas scale with the number of rows.
    inside = [
        LinearProbeRegressor().fit(X[rows], y[rows], groups=groups[rows])
        for rows in found["indices"]["train"]
    ]
    assert [one.alpha_ for one in found["estimator"]] == [one.alpha_ for one in inside]


def test_equal_rows_are_left_out_together():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 40)), rng.standard_normal(60)
    twice = LinearProbeRegressor().fit(np.vstack([X, X]), y)
    assert twice.alpha_ > 100  # y is noise
    means = LinearProbeRegressor().fit(
        X, y.reshape(2, 30).mean(axis=0), sample_weight=np.full(30, 2)
    )
    assert twice.alpha_ == means.alpha_
    np.testing.assert_allclose(twice.coef_, means.coef_, rtol=1e-8)
