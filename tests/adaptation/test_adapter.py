"""DomainAdapter improves predictions if domains differ, and changes nothing otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import DomainAdapter, LinearProbeClassifier, NearestMeanClassifier
from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError


@pytest.mark.filterwarnings("ignore:DomainAdapter got no X_target")
@parametrize_with_checks([DomainAdapter(), DomainAdapter("moments"), DomainAdapter("none")])
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


def test_another_camera_is_adapted_to(digits):
    X, y, T, _, X_test, y_test = digits
    adapter = DomainAdapter(random_state=0)
    rows = adapter.fit_transform(X, y, X_target=other_camera(T))
    assert adapter.method_ == "moments"
    np.testing.assert_array_equal(rows, X)
    plain = LinearProbeClassifier().fit(X, y)
    target = other_camera(X_test)
    adapted = plain.score(adapter.transform(target), y_test)
    assert adapted > plain.score(target, y_test) + 0.2
    assert adapted > 0.85
    decision = adapter.decision_
    assert list(decision.candidates["method"]) == ["none", "moments"]
    for words in ("AUC of 1.000", "worth trying", "Chosen: moments"):
        assert words in decision.explain()
    assert decision.explain().splitlines()[-1] in decision._repr_html_().replace("&gt;", ">")


def test_the_same_camera_is_left_alone(digits):
    X, y, T, _, _, _ = digits
    adapter = DomainAdapter(random_state=0).fit(X, y, X_target=T)
    assert adapter.method_ == "none"
    assert not adapter.decision_.gap.is_clear
    assert "nothing to gain" in str(adapter.decision_)
    np.testing.assert_array_equal(adapter.transform(T), T)


def test_other_shares_of_the_classes_are_not_another_camera(digits):
    X, y, T, y_target, X_test, y_test = digits
    T, y_target = few_of_most(T, y_target)
    adapter = DomainAdapter(random_state=0).fit(X, y, X_target=T)
    gap = adapter.decision_.gap
    assert gap.auc > 0.6  # the domains look different
    assert gap.matched_auc < 0.6  # but not beyond their class proportions
    assert adapter.method_ == "none"
    proportions = np.bincount(y_target) / len(y_target)
    assert np.abs(np.array(list(gap.priors.values())) - proportions).sum() / 2 < 0.1
    # Aligning the moments would do harm.
    X_test, y_test = few_of_most(X_test, y_test)
    head = LinearProbeClassifier().fit(X, y)
    moments = DomainAdapter("moments").fit(X, y, X_target=T)
    loss = head.score(X_test, y_test) - head.score(moments.transform(X_test), y_test)
    assert loss > 0.02


def test_moments_and_coral_do_what_they_say(digits):
    X, _, T, _, _, _ = digits
    T = other_camera(T)
    moved = DomainAdapter("moments").fit(X, X_target=T).transform(T)
    np.testing.assert_allclose(moved.mean(axis=0), X.mean(axis=0), atol=1e-4)
    varied = X.std(axis=0) > 0
    np.testing.assert_allclose(moved.std(axis=0)[varied], X.std(axis=0)[varied], rtol=1e-4)
    coral = DomainAdapter("coral")
    rows = coral.fit_transform(X, X_target=T)
    np.testing.assert_array_equal(coral.transform(T), T)
    np.testing.assert_allclose(rows.mean(axis=0), T.mean(axis=0), atol=1e-3)
    before = np.linalg.norm(np.cov(X.T) - np.cov(T.T))
    assert np.linalg.norm(np.cov(rows.T) - np.cov(T.T)) < before / 5
    assert rows.dtype == np.float32


def test_constant_features_stay_finite():
    rng = np.random.default_rng(0)
    X, T = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    X[:, 0], T[:, 1], X[:, 2], T[:, 2] = 3, 5, 7, 9
    for method in ("moments", "coral"):
        adapter = DomainAdapter(method)
        assert np.isfinite(adapter.fit_transform(X, X_target=T)).all()
        assert np.isfinite(adapter.transform(T)).all()


def test_it_is_a_step_of_a_pipeline_and_a_search(digits):
    X, y, T, _, X_test, y_test = digits
    with sklearn.config_context(enable_metadata_routing=True):
        adapter = DomainAdapter(random_state=0).set_fit_request(X_target=True)
        pipe = make_pipeline(adapter, NearestMeanClassifier())
        pipe.fit(X, y, X_target=other_camera(T))
        assert pipe[0].method_ == "moments"
        assert pipe.score(other_camera(X_test), y_test) > 0.8
        search = GridSearchCV(clone(pipe), {"domainadapter__method": ["none", "moments"]}, cv=2)
        assert hasattr(search.fit(X, y, X_target=other_camera(T)), "best_estimator_")


def test_names_of_columns_are_kept(digits):
    X, y, T, _, _, _ = digits
    adapter = DomainAdapter(random_state=0).set_output(transform="pandas")
    frame = adapter.fit(X, y, X_target=other_camera(T)).transform(T)
    assert list(frame.columns) == [f"x{i}" for i in range(64)]


def test_the_same_seed_decides_the_same_whatever_the_groups_are_called(digits):
    X, y, T, _, _, _ = digits
    groups = np.arange(len(y)) // 6
    a, b = (
        DomainAdapter(random_state=3).fit(X, y, X_target=other_camera(T), groups=names).decision_
        for names in (groups, [f"person {g:03d}" for g in groups])
    )
    np.testing.assert_array_equal(a.right["none"], b.right["none"])
    assert a.explain() == b.explain()


def test_what_cannot_be_adapted_says_why(digits):
    X, y, T, _, _, _ = digits
    with pytest.raises(ParameterError, match="'method'"):
        DomainAdapter("dann").fit(X, y, X_target=T)
    with pytest.raises(InputError, match="y"):
        DomainAdapter().fit(X, X_target=T)
    with pytest.raises(InputError, match=r"got \(600, 64\) and \(500, 63\)"):
        DomainAdapter("moments").fit(X, X_target=T[:, 1:])
    bad = T.copy()
    bad[3, 4] = np.nan
    with pytest.raises(InputError, match="1 of 500 rows with NaN"):
        DomainAdapter("moments").fit(X, X_target=bad)
    with pytest.warns(FeatureTLWarning, match="no X_target"):
        adapter = DomainAdapter().fit(X, y)
    assert adapter.method_ == "none"
