"""ViewPooling, ViewsClassifier and AttentionPoolingClassifier on rows of multiple views."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, NearestMeanClassifier, load_model, save_model
from featuretl.exceptions import InputError, ModelError, ParameterError
from featuretl.heads import AttentionPoolingClassifier, ViewPooling, ViewsClassifier


@parametrize_with_checks(
    [
        ViewPooling(),
        ViewsClassifier(1, NearestMeanClassifier()),
        AttentionPoolingClassifier(attention_C=0.1),
    ]
)
def test_scikit_learn_accepts_them(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Digits with copies shifted a pixel to the left and right, (n, 3 x 64), and their classes."""
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32)
    moved = [np.roll(images, shift, axis=2) for shift in (0, -1, 1)]
    return np.hstack([view.reshape(len(y), -1) for view in moved]), y


def test_one_view_is_the_head_itself(digits):
    X, y = digits[0][:, :64], digits[1]
    head = LinearProbeClassifier()
    views = ViewsClassifier().fit(X, y)
    np.testing.assert_allclose(
        views.predict_proba(X), clone(head).fit(X, y).predict_proba(X), atol=1e-6
    )


def test_copies_of_a_view_change_nothing(digits):
    X, y = digits[0][:300, :64], digits[1][:300]
    once = ViewsClassifier(1, LinearProbeClassifier(tol=1e-7)).fit(X, y)
    thrice = ViewsClassifier(3, LinearProbeClassifier(tol=1e-7)).fit(np.hstack([X] * 3), y)
    np.testing.assert_allclose(
        once.predict_proba(X), thrice.predict_proba(np.hstack([X] * 3)), atol=1e-3
    )


def test_predictions_are_means_over_the_views(digits):
    X, y = digits[0][:300], digits[1][:300]
    views = ViewsClassifier(3).fit(X, y)
    head = views.estimator_
    means = np.mean([head.predict_proba(X[:, i * 64 : (i + 1) * 64]) for i in range(3)], axis=0)
    np.testing.assert_allclose(views.predict_proba(X), means, atol=1e-6)
    np.testing.assert_array_equal(views.predict(X), means.argmax(axis=1))


def test_a_head_that_splits_keeps_the_views_of_an_image_together(digits):
    seen = {}

    class Spy(NearestMeanClassifier):
        def fit(self, X, y, sample_weight=None, groups=None):
            seen.update(weight=sample_weight, groups=groups)
            return super().fit(X, y, sample_weight)

    X, y = digits[0][:20], digits[1][:20]
    ViewsClassifier(3, Spy()).fit(X, y)
    assert seen["groups"].tolist() == np.repeat(np.arange(20), 3).tolist()
    np.testing.assert_allclose(seen["weight"], 1 / 3)
    signers = np.arange(20) // 5
    ViewsClassifier(3, Spy()).fit(X, y, sample_weight=np.full(20, 6.0), groups=signers)
    assert seen["groups"].tolist() == np.repeat(signers, 3).tolist()
    np.testing.assert_allclose(seen["weight"], 2)


def test_heads_without_probabilities_average_decisions(digits):
    X, y = digits[0][:200], digits[1][:200]
    views = ViewsClassifier(3, LinearSVC(C=0.001)).fit(X, y)
    assert not hasattr(views, "predict_proba")
    assert views.decision_function(X).shape == (200, 10)
    assert views.score(X, y) > 0.9
    two = ViewsClassifier(3, LinearSVC(C=0.001)).fit(X, y == 3)
    assert two.decision_function(X).shape == (200,)
    assert two.score(X, y == 3) > 0.9


def test_pooling_by_hand(digits):
    X = digits[0][:5]
    views = X.reshape(5, 3, 64)
    pooled = ViewPooling(3, pooling="mean+max").fit(X)
    np.testing.assert_array_equal(pooled.transform(X), np.hstack([views.mean(1), views.max(1)]))
    names = pooled.get_feature_names_out().tolist()
    assert (len(names), names[0], names[-1]) == (128, "mean0", "max63")


def test_attention_finds_the_view_that_tells(digits):
    """One of four images is a 0 or a 1; the others are other digits."""
    images, y = digits[0][:, :64], digits[1]
    rng = np.random.default_rng(0)
    others = images[y > 1]
    of_class = np.concatenate([np.flatnonzero(y == one)[:120] for one in (0, 1)])
    views = others[rng.integers(len(others), size=(240, 4))]
    where = rng.integers(4, size=240)
    views[np.arange(240), where] = images[of_class]
    X, target = views.reshape(240, -1), y[of_class]
    train = np.arange(240) % 2 == 0
    head = AttentionPoolingClassifier(4, attention_C=0.1).fit(X[train], target[train])
    pooled = make_pipeline(ViewPooling(4), LinearProbeClassifier()).fit(X[train], target[train])
    assert head.score(X[~train], target[~train]) > pooled.score(X[~train], target[~train]) + 0.02
    assert (head.attention(X[~train]).argmax(axis=1) == where[~train]).mean() > 0.6
    np.testing.assert_allclose(head.attention(X).sum(axis=1), 1, rtol=1e-5)


def test_attention_to_one_view_is_logistic_regression(digits):
    X, y = digits[0][:200, :64].astype(np.float64), digits[1][:200]
    head = AttentionPoolingClassifier(C=0.03, max_iter=2000).fit(X, y)
    expected = LinearProbeClassifier(0.03, tol=1e-10).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=0.01)


def test_what_does_not_fit_is_said_in_one_sentence(digits):
    X, y = digits
    with pytest.raises(InputError, match=r"n_views=5 columns; got 192"):
        ViewsClassifier(5).fit(X, y)
    with pytest.raises(InputError, match="got multi-label y"):
        ViewsClassifier(3).fit(X, np.eye(10, dtype=int)[y])
    with pytest.raises(ParameterError, match="pooling"):
        ViewPooling(3, pooling="median").fit(X)


def test_model_files_keep_them_and_refuse_others(digits, tmp_path):
    X, y = digits[0][:200], digits[1][:200]
    model = ViewsClassifier(3).fit(X, y)
    save_model(model, tmp_path / "views.featuretl")
    loaded = load_model(tmp_path / "views.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    save_model(ViewPooling(3).fit(X), tmp_path / "pooling.featuretl")
    np.testing.assert_array_equal(
        load_model(tmp_path / "pooling.featuretl").transform(X), ViewPooling(3).fit_transform(X)
    )
    attention = AttentionPoolingClassifier(3).fit(X, y)
    save_model(attention, tmp_path / "attention.featuretl")
    loaded = load_model(tmp_path / "attention.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), attention.predict_proba(X))
    model.n_views = 2
    with pytest.raises((ModelError, ValueError), match="ViewsClassifier"):
        save_model(model, tmp_path / "other.featuretl")
