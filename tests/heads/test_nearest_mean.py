import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl.exceptions import InputError, ParameterError
from featuretl.heads.nearest_mean import NearestMeanClassifier


@parametrize_with_checks([NearestMeanClassifier()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    return (rng.standard_normal((4, 8)) * 2)[y] + rng.standard_normal((n, 8)) + 5, y


def test_is_simpleshot():
    X, y = data()
    Z = X - X.mean(axis=0)
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    means = np.array([Z[y == k].mean(axis=0) for k in range(4)])
    distance = np.square(Z[:, None] - means).sum(axis=2)
    head = NearestMeanClassifier().fit(X, y)
    np.testing.assert_allclose(head.means_, means)
    np.testing.assert_allclose(head.decision_function(X), -distance, atol=1e-12)
    np.testing.assert_array_equal(head.predict(X), distance.argmin(axis=1))


def test_a_stream_equals_one_fit_with_the_same_center():
    X, y = data()
    center = X.mean(axis=0)
    stream = NearestMeanClassifier(center)
    for start in range(0, 60, 7):
        stream.partial_fit(X[start : start + 7], y[start : start + 7], classes=range(4))
    whole = NearestMeanClassifier().fit(X, y)
    np.testing.assert_allclose(stream.means_, whole.means_)


def test_fit_forgets_and_partial_fit_continues():
    X, y = data()
    head = NearestMeanClassifier().fit(X[:30], y[:30]).fit(X, y)
    np.testing.assert_allclose(head.means_, NearestMeanClassifier().fit(X, y).means_)
    head.partial_fit(X, y)
    assert head.class_weight_.sum() == 120


def test_a_class_not_seen_yet_is_never_predicted():
    X, y = data()
    seen = y != 2
    head = NearestMeanClassifier().partial_fit(X[seen], y[seen], classes=range(4))
    assert 2 not in head.predict(X)
    assert (head.predict_proba(X)[:, 2] == 0).all()


def test_float16_memory_map_equals_float32(tmp_path):
    X, y = data()
    half = X.astype(np.float16)
    np.save(tmp_path / "x.npy", half)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a = NearestMeanClassifier().fit(mapped, y)
    b = NearestMeanClassifier().fit(half.astype(np.float32), y)
    np.testing.assert_allclose(a.means_, b.means_)
    np.testing.assert_allclose(a.decision_function(mapped), b.decision_function(half), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: h.partial_fit(np.eye(3), [0, 1, 2]), "classes"),
        (lambda h: h.partial_fit(np.eye(3), [0, 1, 9], classes=[0, 1]), "9"),
        (lambda h: h.fit(np.eye(3), [1, 1, 1]), "at least 2 classes"),
        (lambda h: h.fit(np.eye(3), [[0, 1], [1, 0], [1, 1]]), "one class per row"),
        (lambda h: h.fit([[np.nan, 1], [0, 1]], [0, 1]), "1 of 2 rows with NaN"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call(NearestMeanClassifier())


@pytest.mark.parametrize("center", [None, "median", [1.0]])
def test_refuses_a_wrong_center(center):
    with pytest.raises(ParameterError, match="'center' parameter of NearestMeanClassifier"):
        NearestMeanClassifier(center).fit(np.eye(3), [0, 1, 1])
