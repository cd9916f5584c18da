import numpy as np
import pytest
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl.exceptions import FeatureTLWarning, InputError, ParameterError
from featuretl.heads.svm import SVMProbeClassifier


def expected_failed_checks(estimator):
    if estimator.kernel == "rbf":
        reason = "libsvm's solution depends on the order and repetition of rows, as SVC's does"
        return {"check_sample_weight_equivalence_on_dense_data": reason}
    return {}


@parametrize_with_checks(
    [SVMProbeClassifier(cv=3), SVMProbeClassifier(1.0, kernel="rbf", gamma="scale", cv=3)],
    expected_failed_checks=expected_failed_checks,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(n=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.standard_normal((classes, 6)) * 1.5)[y] + rng.standard_normal((n, 6)) + 4, y


def test_linear_minimises_the_squared_hinge():
    X, y = data(classes=2)
    head = SVMProbeClassifier(0.1, scaling="features", calibrate=False, tol=1e-10).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    t = 2 * y - 1

    def objective(v):
        shortfall = np.maximum(1 - t * (Z @ v[:-1] + v[-1]), 0)
        return 0.1 * np.square(shortfall).sum() + v[:-1] @ v[:-1] / 2

    v = np.append(head.coef_[0] * X.std(axis=0), head.intercept_ + head.coef_ @ X.mean(axis=0))
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1e-2):
        for _ in range(20):
            assert objective(v) <= objective(v + scale * rng.standard_normal(7))
    np.testing.assert_allclose(X @ head.coef_[0] + head.intercept_, head.decision_function(X))


@pytest.mark.parametrize("classes", [2, 3])
def test_rbf_is_scikit_learns_svc(classes):
    X, y = data(classes=classes)
    head = SVMProbeClassifier(
        10.0, kernel="rbf", gamma=0.2, scaling="features", calibrate=False
    ).fit(X, y)
    svc = make_pipeline(StandardScaler(), SVC(C=10.0, gamma=0.2)).fit(X, y)
    np.testing.assert_allclose(head.decision_function(X), svc.decision_function(X), atol=1e-2)
    assert (head.predict(X) == svc.predict(X)).mean() > 0.98
    assert not hasattr(head, "predict_proba")


@pytest.mark.filterwarnings("ignore:SVMProbeClassifier approximates")
def test_all_landmarks_approximate_nothing(monkeypatch):
    monkeypatch.setattr("featuretl.heads.svm._MOST_EXACT_ROWS", 199)
    X, y = data()
    head = SVMProbeClassifier(1.0, kernel="rbf", gamma=0.2, calibrate=False).fit(X, y)
    assert head.approximated_
    Z = StandardScaler().fit_transform(X)
    features = Nystroem(gamma=0.2, n_components=200, random_state=0).fit_transform(Z)
    other = SVMProbeClassifier(1.0, calibrate=False).fit(features, y)
    assert (head.predict(X) == other.predict(features)).mean() > 0.95


def test_chooses_c_and_gamma_and_calibrates():
    X, y = data()
    head = SVMProbeClassifier(kernel="rbf", random_state=0).fit(X, y)
    assert head.path_.accuracy.shape == (16, 5)
    chosen = head.path_.accuracy.mean(axis=1).round(12).argmax()
    assert (head.C_, head.gamma_) == (head.path_.C[chosen], head.path_.gamma[chosen])
    assert 0 <= head.calibration_.error_after < 0.15
    np.testing.assert_allclose(head.predict_proba(X).sum(axis=1), 1)


def test_says_that_it_approximates():
    X, y = data(4100)
    head = SVMProbeClassifier(1.0, kernel="rbf", gamma="scale", calibrate=False)
    with pytest.warns(FeatureTLWarning, match="1000 Nystroem features, because X has 4100 rows"):
        head.fit(X, y)
    assert head.approximated_
    assert head.score(X, y) > 0.8


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_float16_memory_map_equals_float32(tmp_path, kernel):
    X, y = data()
    half = X.astype(np.float16)
    np.save(tmp_path / "x.npy", half)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    head = SVMProbeClassifier(1.0, kernel=kernel, gamma="scale", calibrate=False)
    a = head.fit(mapped, y).decision_function(mapped)
    b = head.fit(half.astype(np.float32), y).decision_function(half.astype(np.float32))
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"C": 0}, "C"),
        ({"kernel": "poly"}, "kernel"),
        ({"gamma": "auto"}, "gamma"),
        ({"Cs": [1, -1]}, "Cs"),
        ({"cv": 1}, "cv"),
        ({"cv": "loo"}, "cv"),
        ({"calibrate": 1}, "calibrate"),
        ({"tol": 0}, "tol"),
    ],
)
def test_refuses_wrong_parameters(parameters, name):
    with pytest.raises(ParameterError, match=f"'{name}' parameter of SVMProbeClassifier"):
        SVMProbeClassifier(**parameters).fit(np.eye(4), [0, 1, 0, 1])


def test_refuses_labels():
    with pytest.raises(InputError, match="one class per row; got multi-label y"):
        SVMProbeClassifier().fit(np.eye(2), [["a"], ["a", "b"]])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_machine_of_few_rows_is_as_sure_as_it_is_right(small_draws, kernel):
    sure, right = [], []
    for seed in range(8):
        X, y, test, truth = small_draws(16, seed)
        head = SVMProbeClassifier(kernel=kernel, gamma="scale", random_state=0).fit(X, y)
        sure.append(head.predict_proba(test).max(axis=1).mean())
        right.append(head.score(test, truth))
    assert np.mean(right) > 0.9
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.2)
