"""AttentionPoolingClassifier: the learned weights of views, and the limits where it is known."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, load_model, save_model
from featuretl.exceptions import InputError, ParameterError
from featuretl.heads import AttentionPoolingClassifier, ViewPooling


@parametrize_with_checks([AttentionPoolingClassifier(attention_C=0.1)])
def test_scikit_learn_accepts_them(estimator, check):
    check(estimator)


def tiles(n=80, n_views=3, d=4, classes=3, seed=0):
    """Images of which one random view shows the class: rows (n, n_views x d), and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    views = rng.standard_normal((n, n_views, d))
    views[np.arange(n), rng.integers(n_views, size=n)] += 4 * np.eye(classes, d)[y]
    return views.reshape(n, -1), y


def test_attention_finds_the_view_that_tells(digit_views):
    """One of four images is a 0 or a 1; the others are other digits."""
    images, y = digit_views[0][:, :64], digit_views[1]
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


def test_attention_to_one_view_is_logistic_regression(digit_views):
    X, y = digit_views[0][:200, :64].astype(np.float64), digit_views[1][:200]
    head = AttentionPoolingClassifier(C=0.03, max_iter=2000).fit(X, y)
    expected = LinearProbeClassifier(0.03, tol=1e-10).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=0.01)


def test_the_order_of_the_views_does_not_matter():
    X, y = tiles()
    order = [2, 0, 1]
    shuffled = X.reshape(80, 3, 4)[:, order].reshape(80, -1)
    head = AttentionPoolingClassifier(3).fit(X, y)
    other = AttentionPoolingClassifier(3).fit(shuffled, y)
    np.testing.assert_allclose(other.predict_proba(shuffled), head.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(other.attention(shuffled), head.attention(X)[:, order], atol=1e-6)


def test_the_fit_minimises_the_documented_objective():
    X, y = tiles()
    head = AttentionPoolingClassifier(3, C=0.5, attention_C=0.2).fit(X, y)
    Z = (X.reshape(80, 3, 4) - head.mean_) / head.scale_

    def objective(u, coef, intercept):
        weights = np.exp(Z @ u)
        weights /= weights.sum(axis=1, keepdims=True)
        pooled = (weights[:, :, None] * Z).sum(axis=1)
        loss = log_loss(y, softmax(pooled @ coef.T + intercept, axis=1), normalize=False)
        return loss + np.square(coef).sum() / (2 * 0.5) + u @ u / (2 * 0.2)

    found = head.attention_coef_, head.coef_, head.intercept_
    least = objective(*found)
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert objective(*(part + 0.05 * rng.standard_normal(part.shape) for part in found)) > least


def test_weights_of_images_count_as_copies():
    X, y = tiles()
    weight = np.arange(80) // 3 % 3  # an image of weight 0 is absent
    head = AttentionPoolingClassifier(3).fit(X, y, sample_weight=weight)
    copies = AttentionPoolingClassifier(3).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(copies.mean_, head.mean_)
    np.testing.assert_allclose(copies.predict_proba(X), head.predict_proba(X), atol=1e-3)


def test_a_small_attention_C_pools_the_mean():
    X, y = tiles()
    head = AttentionPoolingClassifier(3, attention_C=1e-12).fit(X, y)
    np.testing.assert_allclose(head.attention(X), 1 / 3, atol=1e-6)


def test_too_few_iterations_are_warned_of():
    X, y = tiles()
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        head = AttentionPoolingClassifier(3, max_iter=2).fit(X, y)
    assert head.n_iter_ == 2


@pytest.mark.parametrize(
    "parameters", [{"C": 0}, {"C": "cv"}, {"attention_C": np.inf}, {"max_iter": 0}, {"n_views": 0}]
)
def test_parameters_are_checked(parameters):
    X, y = tiles()
    with pytest.raises(ParameterError, match=f"'{next(iter(parameters))}'"):
        AttentionPoolingClassifier(**({"n_views": 3} | parameters)).fit(X, y)


def test_other_numbers_of_columns_and_multi_label_y_are_refused():
    X, y = tiles()
    with pytest.raises(InputError, match="n_views=5"):
        AttentionPoolingClassifier(5).fit(X, y)
    with pytest.raises(InputError, match="multi-label y"):
        AttentionPoolingClassifier(3).fit(X, np.eye(3, dtype=int)[y])
    head = AttentionPoolingClassifier(3).fit(X, y)
    with pytest.raises(ValueError, match="8 features"):
        head.attention(X[:, :8])


def test_a_model_file_keeps_the_attention(tmp_path):
    X, y = tiles()
    head = AttentionPoolingClassifier(3).fit(X, y)
    save_model(head, tmp_path / "attention.featuretl")
    loaded = load_model(tmp_path / "attention.featuretl")
    np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    np.testing.assert_array_equal(loaded.attention(X), head.attention(X))
