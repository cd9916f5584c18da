import numpy as np
import pytest
from sklearn import config_context
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.heads.ridge import LinearProbeRegressor


@parametrize_with_checks([LinearProbeRegressor(), LinearProbeRegressor(0.1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(n=60, d=12, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3
    Y = X @ rng.standard_normal((d, outputs)) + rng.standard_normal((n, outputs)) * 5 + 7
    return X, Y, rng.uniform(0.1, 2, n)


def test_a_feature_that_hardly_varied_in_training_does_not_break_predictions():
    X, Y, _ = data(60, 12)
    X[:, 4] = 1e-4 * np.random.default_rng(1).standard_normal(60)
    surprise = X.mean(axis=0)
    surprise[4] = 1
    spread = np.ptp(Y, axis=0)
    away = abs(LinearProbeRegressor(1.0).fit(X, Y).predict([surprise])[0] - Y.mean(axis=0))
    assert (away < spread).all()
    each = LinearProbeRegressor(1.0, scaling="features").fit(X, Y).predict([surprise])[0]
    assert (abs(each - Y.mean(axis=0)) > 10 * spread).any()


@pytest.mark.parametrize(("n", "d"), [(60, 12), (20, 50)])
def test_equals_ridge_on_standardised_features(n, d):
    X, Y, weight = data(n, d)
    head = LinearProbeRegressor(3.0, scaling="features").fit(X, Y, sample_weight=weight)
    scaler = StandardScaler().fit(X, sample_weight=weight)
    ridge = Ridge(3.0).fit(scaler.transform(X), Y, sample_weight=weight)
    np.testing.assert_allclose(head.predict(X), ridge.predict(scaler.transform(X)), rtol=1e-8)
    np.testing.assert_allclose(X @ head.coef_.T + head.intercept_, head.predict(X), rtol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(40, 8), (15, 30)])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_equals_brute_force(n, d, weighted):
    X, Y, weight = data(n, d)
    weight = weight if weighted else np.ones(n)
    alphas = [0.1, 1.0, 10.0, 100.0]
    head = LinearProbeRegressor(alphas=alphas, scaling="features").fit(X, Y, sample_weight=weight)
    Z = StandardScaler().fit(X, sample_weight=weight).transform(X)
    error = np.zeros((len(alphas), 2))
    for a, alpha in enumerate(alphas):
        for i in range(n):
            rest = np.arange(n) != i
            model = Ridge(alpha).fit(Z[rest], Y[rest], sample_weight=weight[rest])
            error[a] += weight[i] * (model.predict(Z[[i]])[0] - Y[i]) ** 2
    np.testing.assert_allclose(head.path_.mean_squared_error, error / weight.sum(), rtol=1e-6)
    relative = (error / (weight @ (Y - np.average(Y, axis=0, weights=weight)) ** 2)).mean(axis=1)
    assert head.alpha_ == alphas[relative.argmin()]


def test_a_float16_memory_map_equals_float32(tmp_path):
    X, Y, _ = data(300, 20)
    half = X.astype(np.float16)
    mapped = np.memmap(tmp_path / "x", np.float16, "w+", shape=half.shape)
    mapped[:] = half
    mapped.flush()
    mapped = np.memmap(tmp_path / "x", np.float16, "r", shape=half.shape)
    a = LinearProbeRegressor().fit(mapped, Y)
    b = LinearProbeRegressor().fit(half.astype(np.float32), Y)
    assert a.alpha_ == b.alpha_
    np.testing.assert_allclose(a.predict(mapped), b.predict(half.astype(np.float32)), rtol=1e-4)


def test_auto_alphas_find_the_noise():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 80))
    y = X[:, 0] + rng.standard_normal(100)
    head = LinearProbeRegressor().fit(X, y)
    assert head.alpha_ > 10
    assert head.coef_.shape == (80,)


@pytest.mark.parametrize("alpha", [0, -1, np.nan, "cv", None, True])
def test_refuses_a_wrong_alpha(alpha):
    with pytest.raises(ParameterError, match="'alpha' parameter of LinearProbeRegressor"):
        LinearProbeRegressor(alpha).fit(np.eye(4), np.arange(4))


def test_refuses_other_lengths_and_nan():
    with pytest.raises(InputError, match=r"y .*got 3 for 4 rows"):
        LinearProbeRegressor().fit(np.eye(4), np.arange(3))
    X = np.eye(4)
    X[1, 2] = np.nan
    with pytest.raises(InputError, match="1 of 4 rows with NaN"):
        LinearProbeRegressor().fit(X, np.arange(4))


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
