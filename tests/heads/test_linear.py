import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.heads.linear import LinearProbeClassifier


@parametrize_with_checks(
    [
        LinearProbeClassifier(),
        LinearProbeClassifier("cv", cv=3, calibrate=True),
        LinearProbeClassifier("cv", cv=2, scoring="accuracy", class_weight="balanced"),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(n=300, d=12, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = rng.standard_normal((classes, d))[y] + rng.standard_normal((n, d))
    return X @ rng.standard_normal((d, d)) + 5, y


def reference(C, X, y, weight=None, **options):
    scaler = StandardScaler().fit(X, sample_weight=weight)
    model = LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=1000, **options)
    model.fit(scaler.transform(X), y, sample_weight=weight)
    return lambda A: model.predict_proba(scaler.transform(A))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_equals_logistic_regression_on_standardised_features(classes, C):
    X, y = data(classes=classes)
    head = LinearProbeClassifier(C, tol=1e-14, scaling="features").fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), reference(C, X, y)(X), atol=2e-6)


@pytest.mark.parametrize("scaling", ["common", "floored"])
def test_a_common_scale_keeps_the_proportions_of_the_features(scaling):
    X, y = data()
    X[:, 3:6] /= 50
    head = LinearProbeClassifier(0.1, tol=1e-14, scaling=scaling).fit(X, y)
    common = np.sqrt(X.var(axis=0).mean())
    Z = (X - X.mean(axis=0)) / (common if scaling == "common" else np.maximum(X.std(0), common))
    model = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-10).fit(Z, y)
    np.testing.assert_allclose(head.predict_proba(X), model.predict_proba(Z), atol=2e-6)
    folds = list(GroupKFold(3).split(X, y, np.arange(len(y)) // 7))
    path = LinearProbeClassifier("cv", Cs=[0.1], cv=folds, tol=1e-12, scaling=scaling).fit(X, y)
    for (train, test), loss in zip(folds, path.path_.log_loss[0], strict=True):
        part = LinearProbeClassifier(0.1, tol=1e-12, scaling=scaling).fit(X[train], y[train])
        assert loss == pytest.approx(log_loss(y[test], part.predict_proba(X[test])), rel=1e-4)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1.0, 1: 3.0, 2: 0.5, 3: 1.0}])
def test_weights_equal_those_of_logistic_regression(class_weight):
    X, y = data()
    weight = np.random.default_rng(1).uniform(0, 2, len(y))
    head = LinearProbeClassifier(0.1, tol=1e-14, scaling="features", class_weight=class_weight)
    head.fit(X, y, sample_weight=weight if class_weight != "balanced" else None)
    given_weight = weight if class_weight != "balanced" else None
    expected = reference(0.1, X, y, given_weight, class_weight=class_weight)(X)
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=40), st.integers(0, 100))
def test_weights_equal_repeated_rows(repeats, seed):
    X, y = data(40, 5, 3, seed)
    repeats = np.array(repeats)
    left = len(np.unique(np.repeat(y, repeats)))
    if left < 2 or left == 2 < len(np.unique(y)):
        return  # a binary fit has one vector of coefficients, and its penalty is another one
    a = LinearProbeClassifier(0.1, tol=1e-12, class_weight="balanced")
    a.fit(X, y, sample_weight=repeats)
    b = LinearProbeClassifier(0.1, tol=1e-12, class_weight="balanced")
    b.fit(np.repeat(X, repeats, axis=0), np.repeat(y, repeats))
    columns = np.isin(a.classes_, b.classes_)
    np.testing.assert_allclose(
        a.decision_function(X) if len(a.classes_) == 2 else a.predict_proba(X)[:, columns],
        b.decision_function(X) if len(a.classes_) == 2 else b.predict_proba(X),
        atol=1e-4,
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_is_one_matrix(classes):
    X, y = data(classes=classes)
    head = LinearProbeClassifier().fit(X, y)
    expected = X @ head.coef_.T + head.intercept_
    np.testing.assert_allclose(
        head.decision_function(X), expected[:, 0] if classes == 2 else expected, rtol=1e-9
    )
    assert (np.asarray(head.decision_function(X)).reshape(len(X), -1)).shape == expected.shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_read_only_memory_maps_of_all_floats(tmp_path, dtype):
    X, y = data()
    X = X.astype(dtype)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    head = LinearProbeClassifier("cv", calibrate=True, random_state=0).fit(mapped, y)
    other = LinearProbeClassifier("cv", calibrate=True, random_state=0)
    other.fit(X if dtype == np.float64 else X.astype(np.float32), y)
    assert head.coef_.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(head.predict_proba(mapped), other.predict_proba(X), atol=1e-5)


def test_streaming_equals_copying(monkeypatch, tmp_path):
    X, y = data(2000, 16)
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    copied = LinearProbeClassifier(0.1, tol=1e-9).fit(mapped.astype(np.float32), y)
    monkeypatch.setattr("featuretl._learning.rows._COPY_BYTES", 0)
    monkeypatch.setattr("featuretl._learning.rows._BLOCK_ELEMENTS", 16 * 100)
    streamed = LinearProbeClassifier(0.1, tol=1e-9).fit(mapped, y)
    np.testing.assert_allclose(
        streamed.decision_function(mapped), copied.decision_function(mapped), atol=2e-3
    )


def test_path_scores_are_those_of_cross_val_score():
    X, y = data()
    Cs = [1e-3, 1e-2, 1e-1]
    folds = list(GroupKFold(4).split(X, y, np.arange(len(y)) // 7))
    head = LinearProbeClassifier("cv", Cs=Cs, cv=folds, tol=1e-12, scaling="features").fit(X, y)
    for i, C in enumerate(Cs):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=5000))
        for scoring, scores in (
            ("accuracy", head.path_.accuracy),
            ("neg_log_loss", -head.path_.log_loss),
        ):
            expected = cross_val_score(model, X, y, cv=folds, scoring=scoring)
            np.testing.assert_allclose(scores[i], expected, rtol=1e-3)
    assert head.C_ == Cs[head.path_.log_loss.mean(axis=1).argmin()]


def test_auto_path_refines_around_the_peak():
    X, y = data()
    head = LinearProbeClassifier("cv", random_state=0).fit(X, y)
    assert (np.diff(head.path_.C) > 0).all()
    near = np.abs(np.log10(head.path_.C / head.C_)) < 0.4
    assert near.sum() >= 2
    assert head.path_.log_loss.shape == (len(head.path_.C), 5)


def test_groups_are_never_split_and_route_as_metadata():
    X, y = data()
    groups = np.arange(len(y)) // 10
    # Every row has a near copy, which only groups keep out of the training rows.
    X, y, groups = np.vstack([X, X + 1e-3]), np.tile(y, 2), np.tile(groups, 2)
    noise = np.random.default_rng(0).permutation(y)
    Cs = [10.0]
    split = LinearProbeClassifier("cv", Cs=Cs, random_state=0).fit(X, noise)
    kept = LinearProbeClassifier("cv", Cs=Cs, random_state=0).fit(X, noise, groups=groups)
    assert kept.path_.log_loss.mean() > split.path_.log_loss.mean()
    with config_context(enable_metadata_routing=True):
        head = LinearProbeClassifier("cv", Cs=Cs, random_state=0)
        head.set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=True)
        result = cross_validate(
            head,
            X,
            y,
            cv=GroupKFold(3),
            params={"groups": groups, "sample_weight": np.ones(len(y))},
            error_score="raise",
        )
    assert len(result["test_score"]) == 3


def multilabel_data(n=200, labels=5):
    X, _ = data(n)
    rng = np.random.default_rng(0)
    Y = (X @ rng.standard_normal((X.shape[1], labels)) > 4 * rng.standard_normal(labels) + 8) * 1
    return X, Y


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_multilabel_is_one_vs_rest(class_weight):
    X, Y = multilabel_data()
    head = LinearProbeClassifier(0.1, tol=1e-13, scaling="features", class_weight=class_weight).fit(
        X, Y
    )
    Z = StandardScaler().fit_transform(X)
    model = LogisticRegression(C=0.1, tol=1e-9, max_iter=5000, class_weight=class_weight)
    expected = OneVsRestClassifier(model).fit(Z, Y).predict_proba(Z)
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-4)
    assert head.coef_.shape == (5, X.shape[1])


def test_lists_of_labels_are_an_indicator():
    X, Y = multilabel_data()
    names = np.array(["a", "b", "c", "d", "e"])
    lists = [list(names[row == 1]) for row in Y]
    head = LinearProbeClassifier("cv", calibrate=True, random_state=0).fit(X, lists)
    other = LinearProbeClassifier("cv", calibrate=True, random_state=0).fit(X, Y)
    assert head.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(head.predict(X), other.predict(X))
    assert head.score(X, lists) == other.score(X, Y) > 0.5
    assert LinearProbeClassifier().fit(X, [set(row) for row in lists]).predict(X).shape == Y.shape


def test_a_label_that_never_occurs_is_never_predicted():
    X, Y = multilabel_data()
    Y[:, 2] = 0
    head = LinearProbeClassifier("cv", random_state=0).fit(X, Y)
    assert head.predict_proba(X)[:, 2].max() < 1e-3


def test_temperature_repairs_overconfidence():
    X, y = data()
    y = np.where(np.random.default_rng(0).uniform(size=len(y)) < 0.4, 0, y)
    head = LinearProbeClassifier(1000.0, calibrate=True, random_state=0).fit(X, y)
    assert head.calibration_.temperature > 1
    plain = LinearProbeClassifier(1000.0).fit(X, y)
    np.testing.assert_array_equal(head.predict(X), plain.predict(X))
    assert head.predict_proba(X).max() < plain.predict_proba(X).max()


def test_two_classes_that_are_apart_converge():
    X = np.r_[np.zeros((20, 3)), np.ones((20, 3)) * 100].astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = LinearProbeClassifier(1e6).fit(X, np.repeat(["a", "b"], 20))
    assert head.score(X, np.repeat(["a", "b"], 20)) == 1


def test_constant_and_shifted_columns():
    X, y = data()
    X = np.c_[X, np.full(len(y), 7.0), X[:, 0] + 1e6]
    head = LinearProbeClassifier(0.1).fit(X, y)
    assert np.isfinite(head.coef_).all()
    assert (head.coef_[:, -2] == 0).all()
    plain = LinearProbeClassifier(0.1).fit(np.c_[X[:, :-2], X[:, 0]], y)
    assert (head.predict(X) == plain.predict(np.c_[X[:, :-2], X[:, 0]])).mean() > 0.99


def test_fewer_folds_are_said_aloud():
    X, y = data(40)
    y = np.r_[np.zeros(20, int), np.ones(17, int), np.full(3, 2)]
    with pytest.warns(FeatureTLWarning, match=r"3 folds.*class 2"):
        head = LinearProbeClassifier("cv", random_state=0).fit(X, y)
    assert head.path_.accuracy.shape[1] == 3


def test_says_that_it_did_not_converge():
    X, y = data()
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        LinearProbeClassifier(10.0, max_iter=3).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"C": 0}, "C"),
        ({"C": "auto"}, "C"),
        ({"C": True}, "C"),
        ({"C": np.inf}, "C"),
        ({"Cs": []}, "Cs"),
        ({"Cs": "grid"}, "Cs"),
        ({"cv": 1}, "cv"),
        ({"scoring": "accurate"}, "scoring"),
        ({"scaling": "feature"}, "scaling"),
        ({"calibrate": "yes"}, "calibrate"),
        ({"tol": -1}, "tol"),
        ({"max_iter": 0.5}, "max_iter"),
    ],
)
def test_refuses_wrong_parameters(parameters, name):
    with pytest.raises(ParameterError, match=f"'{name}' parameter of LinearProbeClassifier must"):
        LinearProbeClassifier(**parameters).fit(np.eye(4), [0, 1, 0, 1])


NAN, INF = np.eye(4), np.eye(4)
NAN[[0, 2], 1] = np.nan
INF[3, 3] = np.inf


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (NAN, [0, 1, 0, 1], {}, "2 of 4 rows with NaN"),
        (INF, [0, 1, 0, 1], {}, "0 of 4 rows with NaN and 1 "),
        (np.eye(4), [1, 1, 1, 1], {}, "2 classes.*one class, 1"),
        (np.eye(4), [0, 1, 0], {}, "y .*got 3 for 4 rows"),
        (np.eye(4), [0, 1, 0, 1], {"sample_weight": [1, 1]}, "sample_weight .*got 2 for 4 rows"),
        (np.eye(4), [0, 1, 0, 1], {"sample_weight": [1, 1, 1, -1]}, "sample_weight .*>= 0"),
        (np.eye(4), [0, 1, 0, 1], {"sample_weight": [1, 0, 1, 0]}, "sample_weight"),
        (np.eye(4), [0, 1, 2, 3], {}, "2 folds"),
        (np.eye(4), [0, 1, 0, 1], {"groups": [1, 1, 1, 1]}, "groups"),
        (np.eye(4), [0, 1, 0, 1], {"groups": [1, 2]}, "groups .*got 2 for 4 rows"),
    ],
)
def test_bad_input_gets_one_sentence(X, y, options, message):
    head = LinearProbeClassifier("cv")
    with pytest.raises(InputError, match=message):
        head.fit(X, y, **options)


def test_prediction_counts_the_nan_rows_too():
    head = LinearProbeClassifier().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(InputError, match="2 of 4 rows with NaN"):
        head.predict(NAN)


def test_class_weight_of_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="class_weight"):
        LinearProbeClassifier(class_weight={"x": 2}).fit(np.eye(4), [0, 1, 0, 1])


def test_a_second_fit_leaves_nothing_of_the_first():
    X, y = load_iris(return_X_y=True)
    head = LinearProbeClassifier("cv", calibrate=True, random_state=0).fit(X, y)
    assert hasattr(head, "path_")
    head.set_params(C=0.1, calibrate=False).fit(X, y)
    assert not hasattr(head, "path_")
    assert not hasattr(head, "calibration_")
    fresh = LinearProbeClassifier(0.1).fit(X, y)
    np.testing.assert_array_equal(head.predict_proba(X), fresh.predict_proba(X))


@pytest.mark.parametrize("n", [6, 12, 24])
@pytest.mark.parametrize("C", [0.03, "cv"])
def test_calibrated_on_few_rows_is_no_worse_than_uncalibrated(small_draws, n, C):
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
