"""ViewPooling and ViewsClassifier on rows of multiple views."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, NearestMeanClassifier, load_model, save_model
from featuretl.exceptions import InputError, ModelError, ParameterError
from featuretl.heads import ViewPooling, ViewsClassifier


@parametrize_with_checks([ViewPooling(), ViewsClassifier(1, NearestMeanClassifier())])
def test_scikit_learn_accepts_them(estimator, check):
    check(estimator)


def test_one_view_is_the_head_itself(digit_views):
    X, y = digit_views[0][:, :64], digit_views[1]
    head = LinearProbeClassifier()
    views = ViewsClassifier().fit(X, y)
    np.testing.assert_allclose(
        views.predict_proba(X), clone(head).fit(X, y).predict_proba(X), atol=1e-6
    )


def test_copies_of_a_view_change_nothing(digit_views):
    X, y = digit_views[0][:300, :64], digit_views[1][:300]
    once = ViewsClassifier(1, LinearProbeClassifier(tol=1e-7)).fit(X, y)
    thrice = ViewsClassifier(3, LinearProbeClassifier(tol=1e-7)).fit(np.hstack([X] * 3), y)
    np.testing.assert_allclose(
        once.predict_proba(X), thrice.predict_proba(np.hstack([X] * 3)), atol=1e-3
    )


def test_predictions_are_means_over_the_views(digit_views):
    X, y = digit_views[0][:300], digit_views[1][:300]
    views = ViewsClassifier(3).fit(X, y)
    head = views.estimator_
    means = np.mean([head.predict_proba(X[:, i * 64 : (i + 1) * 64]) for i in range(3)], axis=0)
    np.testing.assert_allclose(views.predict_proba(X), means, atol=1e-6)
    np.testing.assert_array_equal(views.predict(X), means.argmax(axis=1))


def test_a_head_that_splits_keeps_the_views_of_an_image_together(digit_views):
    seen = {}

    class Spy(NearestMeanClassifier):
        def fit(self, X, y, sample_weight=None, groups=None):
            seen.update(weight=sample_weight, groups=groups)
            return super().fit(X, y, sample_weight)

    X, y = digit_views[0][:20], digit_views[1][:20]
    ViewsClassifier(3, Spy()).fit(X, y)
    assert seen["groups"].tolist() == np.repeat(np.arange(20), 3).tolist()
    np.testing.assert_allclose(seen["weight"], 1 / 3)
    signers = np.arange(20) // 5
    ViewsClassifier(3, Spy()).fit(X, y, sample_weight=np.full(20, 6.0), groups=signers)
    assert seen["groups"].tolist() == np.repeat(signers, 3).tolist()
    np.testing.assert_allclose(seen["weight"], 2)


def test_heads_without_probabilities_average_decisions(digit_views):
    X, y = digit_views[0][:200], digit_views[1][:200]
    views = ViewsClassifier(3, LinearSVC(C=0.001)).fit(X, y)
    assert not hasattr(views, "predict_proba")
    assert views.decision_function(X).shape == (200, 10)
    assert views.score(X, y) > 0.9
    two = ViewsClassifier(3, LinearSVC(C=0.001)).fit(X, y == 3)
    assert two.decision_function(X).shape == (200,)
    assert two.score(X, y == 3) > 0.9


def test_pooling_by_hand(digit_views):
    X = digit_views[0][:5]
    views = X.reshape(5, 3, 64)
    pooled = ViewPooling(3, pooling="mean+max").fit(X)
    np.testing.assert_array_equal(pooled.transform(X), np.hstack([views.mean(1), views.max(1)]))
    names = pooled.get_feature_names_out().tolist()
    assert (len(names), names[0], names[-1]) == (128, "mean0", "max63")


def test_what_does_not_fit_is_said_in_one_sentence(digit_views):
    X, y = digit_views
    with pytest.raises(InputError, match=r"n_views=5 columns; got 192"):
        ViewsClassifier(5).fit(X, y)
    with pytest.raises(InputError, match="got multi-label y"):
        ViewsClassifier(3).fit(X, np.eye(10, dtype=int)[y])
    with pytest.raises(ParameterError, match="pooling"):
        ViewPooling(3, pooling="median").fit(X)


def test_model_files_keep_them_and_refuse_others(digit_views, tmp_path):
    X, y = digit_views[0][:200], digit_views[1][:200]
    model = ViewsClassifier(3).fit(X, y)
    save_model(model, tmp_path / "views.featuretl")
    loaded = load_model(tmp_path / "views.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    save_model(ViewPooling(3).fit(X), tmp_path / "pooling.featuretl")
    np.testing.assert_array_equal(
        load_model(tmp_path / "pooling.featuretl").transform(X), ViewPooling(3).fit_transform(X)
    )
    model.n_views = 2
    with pytest.raises((ModelError, ValueError), match="ViewsClassifier"):
        save_model(model, tmp_path / "other.featuretl")
