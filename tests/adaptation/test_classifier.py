"""DomainAdaptedClassifier changes nothing without labels, and gains with few of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import (
    DomainAdaptedClassifier,
    LinearProbeClassifier,
    NearestMeanClassifier,
    load_model,
    save_model,
)
from featuretl.adaptation.classifier import Adaptation, _interval_of_gain
from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.networks.heads import head_of


@pytest.mark.filterwarnings("ignore:DomainAdaptedClassifier got no X_target")
@parametrize_with_checks(
    [DomainAdaptedClassifier(), DomainAdaptedClassifier(NearestMeanClassifier())]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def other_camera(X: np.ndarray) -> np.ndarray:
    """Return darker, noisy rows of less contrast, with a different change in each pixel."""
    rng = np.random.default_rng(1)
    gain, level = rng.uniform(0.2, 0.8, X.shape[1]), rng.uniform(0, 20, X.shape[1])
    return (X * gain + level + rng.normal(size=X.shape)).astype(np.float32)


def few_of_most(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all digits 0 to 2, and one in ten of the others."""
    keep = (y < 3) | (np.arange(len(y)) % 10 == 0)
    return X[keep], y[keep]


def some_of(y: np.ndarray, k: int) -> np.ndarray:
    """Return the labels with all but k of them replaced by -1."""
    return np.where(np.arange(len(y)) < k, y, -1)


def fitted(*args, **options) -> DomainAdaptedClassifier:
    return DomainAdaptedClassifier(random_state=0, **options).fit(*args)


@pytest.mark.parametrize("shift", ["none", "shares", "camera", "both"])
def test_without_labels_nothing_is_changed_and_no_score_lost(digits, shift):
    X, y, T, y_target, X_test, _ = digits
    T = few_of_most(T, y_target)[0] if shift in ("shares", "both") else T
    T = other_camera(T) if shift in ("camera", "both") else T
    model, plain = fitted(X, y, T), LinearProbeClassifier().fit(X, y)
    assert model.method_ == "none"
    np.testing.assert_array_equal(model.predict_proba(X_test), plain.predict_proba(X_test))
    assert model.decision_.gap.is_clear == (shift in ("camera", "both"))
    assert "Nothing was changed: without labels" in str(model.decision_)
    assert not len(model.decision_.candidates)


def test_labels_of_fifty_rows_from_another_camera_gain(digits):
    X, y, T, y_target, X_test, y_test = digits
    T, X_test = other_camera(T), other_camera(X_test)
    model = fitted(X, y, T, some_of(y_target, 50))
    gain = model.score(X_test, y_test) - LinearProbeClassifier().fit(X, y).score(X_test, y_test)
    assert model.method_ == "pooled"
    assert gain > 0.1
    found = model.decision_.candidates.set_index("method")
    assert list(found.index) == ["none", "pooled"]
    assert found.loc["none", "gain"] == 0
    assert (found["low"] <= found["gain"]).all() and (found["gain"] <= found["high"]).all()
    assert "On 50 labelled target rows, held out in 5 folds" in str(model.decision_)
    assert "50 labels cannot show a gain of under 10 points" in str(model.decision_)


def test_labels_gain_where_an_alignment_of_moments_would_do_harm(digits):
    X, y, T, y_target, X_test, y_test = digits
    (T, y_target), (X_test, y_test) = few_of_most(T, y_target), few_of_most(X_test, y_test)
    plain = LinearProbeClassifier().fit(X, y)
    aligned = StandardScaler().fit(X).inverse_transform(StandardScaler().fit(T).transform(X_test))
    assert plain.score(aligned, y_test) < plain.score(X_test, y_test) - 0.02
    model = fitted(X, y, T, some_of(y_target, 20))
    assert model.score(X_test, y_test) > plain.score(X_test, y_test) - 0.01


def test_wrong_labels_that_cost_accuracy_are_left_out(digits):
    X, y, T, y_target, X_test, _ = (rows[:200] if len(rows) == 600 else rows for rows in digits)
    wrong = np.random.default_rng(0).random(500) < 0.4
    head = KNeighborsClassifier(1)
    model = fitted(X, y, T, np.where(wrong, (y_target + 1) % 10, y_target), estimator=head)
    assert model.decision_.gain("pooled")[2] < 0
    assert model.method_ == "none"
    np.testing.assert_array_equal(model.predict(X_test), head.fit(X, y).predict(X_test))


def test_pooled_is_the_head_of_all_labelled_rows(digits):
    X, y, T, y_target, X_test, _ = digits
    model = fitted(X, y, T, some_of(y_target, 50))
    both = LinearProbeClassifier().fit(np.vstack([X, T[:50]]), np.append(y, y_target[:50]))
    np.testing.assert_array_equal(model.predict_proba(X_test), both.predict_proba(X_test))
    np.testing.assert_array_equal(model.decision_function(X_test), both.decision_function(X_test))


def test_a_model_file_and_a_network_predict_the_same(digits, tmp_path):
    X, y, T, y_target, X_test, _ = digits
    for head in (None, make_pipeline(StandardScaler(), NearestMeanClassifier())):
        model = fitted(X, y, other_camera(T), some_of(y_target, 20), estimator=head)
        save_model(model, tmp_path / "m.featuretl")
        twin = load_model(tmp_path / "m.featuretl")
        np.testing.assert_array_equal(twin.predict_proba(X_test), model.predict_proba(X_test))
        network = head_of([model])
        values = network(torch.as_tensor(X_test))
        assert (network.chosen(values).numpy() == model.predict(X_test)).mean() > 0.99


def test_it_is_a_step_of_a_pipeline_whose_steps_see_the_target_too(digits):
    X, y, T, y_target, X_test, y_test = digits
    T, X_test, known = other_camera(T), other_camera(X_test), some_of(y_target, 20)
    with sklearn.config_context(enable_metadata_routing=True):
        head = DomainAdaptedClassifier(random_state=0)
        head.set_fit_request(X_target=True, y_target=True)
        pipe = make_pipeline(StandardScaler(), head, transform_input=["X_target"])
        pipe.fit(X, y, X_target=T, y_target=known)
        own = StandardScaler().fit(X)
        alone = clone(head).fit(own.transform(X), y, own.transform(T), known)
        np.testing.assert_array_equal(pipe.predict(X_test), alone.predict(own.transform(X_test)))
        grid = {"domainadaptedclassifier__estimator": [None, NearestMeanClassifier()]}
        search = GridSearchCV(clone(pipe), grid, cv=2).fit(X, y, X_target=T, y_target=known)
        assert search.predict(X_test).shape == y_test.shape


def test_heads_without_probabilities_or_with_groups(digits):
    X, y, T, y_target, _, _ = digits
    T, groups = other_camera(T), np.arange(len(y)) // 6
    model = fitted(X, y, T, some_of(y_target, 20), estimator=RidgeClassifier())
    assert not hasattr(model, "predict_proba") and model.predict(T).shape == (500,)
    head = LinearProbeClassifier("cv", cv=3, Cs=[0.01, 0.1], random_state=0)
    a, b = (
        fitted(X, y, T, some_of(y_target, 10), names, estimator=head)
        for names in (groups, [f"person {g:03d}" for g in groups])
    )
    assert str(a.decision_) == str(b.decision_)
    np.testing.assert_array_equal(a.estimator_.path_.log_loss, b.estimator_.path_.log_loss)


@pytest.mark.parametrize("gap", [-1, None, float("nan"), ""], ids=repr)
def test_labels_of_the_target_are_read_like_those_of_semi_supervised_heads(digits, gap):
    X, y, T, y_target, _, _ = digits
    names = np.array([f"digit {k}" for k in range(10)], object)
    model = fitted(X, names[y], T, [*names[y_target[:20]], *[gap] * 480])
    numbers = fitted(X, y, T, some_of(y_target, 20))
    for name in ("none", "pooled"):
        np.testing.assert_array_equal(model.decision_.right[name], numbers.decision_.right[name])
    assert fitted(X, y, T, np.full(500, -1)).method_ == "none"


def test_one_label_and_equal_rows_are_no_evidence(digits):
    X, y, T, y_target, _, _ = digits
    for rows, k in ((T, 1), (T[np.r_[0, 0, 1:499]], 2)):
        model = fitted(X, y, rows, some_of(np.full(500, y_target[0]), k))
        assert model.decision_.right == {}
        assert "too few to measure" in str(model.decision_)
        assert model.method_ == "pooled"


def test_intervals_of_gains():
    assert _interval_of_gain(0, 0, 1) == (-1, 1)
    for n in (5, 20, 50):  # five rows must be gained to be shown
        assert _interval_of_gain(5, 0, n)[0] > 0 >= _interval_of_gain(4, 0, n)[0]
    low, high = _interval_of_gain(3, 1, 20)
    assert (-high, -low) == pytest.approx(_interval_of_gain(1, 3, 20))
    # Coverage by simulation, for rows of which 30% change for the better and 10% for the worse.
    changes = np.random.default_rng(0).multinomial(20, [0.3, 0.1, 0.6], 500)
    intervals = np.array([_interval_of_gain(won, lost, 20) for won, lost, _ in changes])
    assert ((intervals[:, 0] < 0.2) & (intervals[:, 1] > 0.2)).mean() > 0.93


def test_what_cannot_be_adapted_says_why(digits):
    X, y, T, y_target, _, _ = digits
    bad = T.copy()
    bad[3, 4] = np.nan
    for message, args in (
        ("got \\(600, 64\\) and \\(500, 63\\)", (X, y, T[:, 1:])),
        ("1 of 500 rows with NaN", (X, y, bad)),
        ("X_target must have the shape", (X, y, T[:0])),
        ("only one class", (X, np.zeros(600), T)),
        ("multi-label", (X, np.eye(10, dtype=int)[y], T)),
        ("y_target .* holds 1 classes that y does not hold", (X, y, T, [10] + [-1] * 499)),
        ("each of the 500 rows of X_target; got 499", (X, y, T, y_target[1:])),
        ("each of the 500 rows", (X, y, T, np.eye(10, dtype=int)[y_target])),
        ("y_target without X_target", (X, y, None, y_target)),
    ):
        with pytest.raises(InputError, match=message) as error:
            fitted(*args)
        assert "\n" not in str(error.value)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(64)])
    with pytest.raises(ValueError, match="feature names"):
        fitted(frame, y, frame[frame.columns[::-1]])
    with pytest.raises(ParameterError, match="estimator"):
        fitted(X, y, T, estimator="svm")
    with pytest.warns(FeatureTLWarning, match="no X_target"):
        model = fitted(X, y)
    assert str(model.decision_).startswith("There are no target rows.")
    assert isinstance(model.decision_, Adaptation)
