"""Heads as networks have the values, probabilities and classes of the estimators."""

import numpy as np
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from featuretl import (
    LinearProbeClassifier,
    LinearProbeRegressor,
    NearestMeanClassifier,
    SemiSupervisedProbeClassifier,
    SVMProbeClassifier,
)
from featuretl.exceptions import ModelError
from featuretl.models.classes import CLASSES
from featuretl.networks import heads as heads_module
from featuretl.networks.heads import head_of

RBF = {"kernel": "rbf", "gamma": "scale", "cv": 2, "random_state": 0}
CLASSIFIERS = {
    "linear probe": [LinearProbeClassifier()],
    "calibrated probe": [LinearProbeClassifier(calibrate=True, random_state=0)],
    "linear SVM": [SVMProbeClassifier(C=0.01, random_state=0)],
    "SVM without probabilities": [SVMProbeClassifier(C=0.01, calibrate=False)],
    "RBF SVM": [SVMProbeClassifier(C=1.0, **RBF)],
    "approximate SVM": [SVMProbeClassifier(C=1.0, **RBF)],
    "nearest mean": [NearestMeanClassifier()],
    "self-training": [SemiSupervisedProbeClassifier(method="self-training")],
    "semi-supervised": [SemiSupervisedProbeClassifier()],
    "scaled regression": [StandardScaler(), LogisticRegression(max_iter=500)],
    "whitened regression": [PCA(8, whiten=True), LogisticRegression(max_iter=500)],
    "unit length": [None, Normalizer(), LinearSVC()],
    "largest 1": [Normalizer("max"), "passthrough", LinearSVC()],
    "SVC": [StandardScaler(), SVC(gamma="scale")],
    "linear SVC": [SVC(kernel="linear", C=0.01)],
    "Nystroem": [StandardScaler(with_std=False), Nystroem(gamma=1e-3, n_components=20), LogisticRegression()],
}  # fmt: skip
REGRESSORS = {
    "ridge probe": LinearProbeRegressor(),
    "ridge": Ridge(),
    "scaled SVR": TransformedTargetRegressor(
        make_pipeline(StandardScaler(), SVR()), transformer=StandardScaler()
    ),
}


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits, float32 (300, 64), and their classes."""
    X, y = load_digits(return_X_y=True)
    return X[:300].astype(np.float32), y[:300]


def fitted(steps, X, y):
    return make_pipeline(*steps).fit(X, y)


@pytest.mark.filterwarnings("ignore:SVMProbeClassifier approximates")
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_head_as_a_network_says_what_the_head_says(name, classes, digits, monkeypatch):
    if name == "approximate SVM":
        monkeypatch.setattr("featuretl.heads.svm._MOST_EXACT_ROWS", 20)
        monkeypatch.setattr("featuretl.heads.svm._N_COMPONENTS", 20)
    X, y = digits
    kept = y < classes
    X, y = X[kept], np.array(["zero", "one", "two", "three"])[y[kept]]
    model = fitted(CLASSIFIERS[name], X, y)
    head = head_of([step for _, step in model.steps])
    values = head(torch.from_numpy(X))
    expected = model.decision_function(X).reshape(len(X), -1)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(np.array(head.classes)[head.chosen(values)], model.predict(X))
    assert head.has_probabilities == hasattr(model, "predict_proba")
    if head.has_probabilities:
        np.testing.assert_allclose(head.probabilities(values), model.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_as_a_network(name, digits):
    X, y = digits
    model = REGRESSORS[name].fit(X, y / 3)
    head = head_of([model])
    assert head.flat and head.classes is None
    np.testing.assert_allclose(head(torch.from_numpy(X))[:, 0], model.predict(X), atol=1e-4)


def test_several_numbers_and_several_labels(digits):
    X, y = digits
    ridge = LinearProbeRegressor().fit(X, np.column_stack([y, y**2]))
    np.testing.assert_allclose(
        head_of([ridge])(torch.from_numpy(X)), ridge.predict(X), rtol=1e-4, atol=1e-3
    )
    probe = LinearProbeClassifier().fit(X, np.column_stack([y % 2, y > 4, y == 0]).astype(int))
    head = head_of([probe])
    values = head(torch.from_numpy(X))
    np.testing.assert_array_equal(head.chosen(values), probe.predict(X))
    np.testing.assert_allclose(head.probabilities(values), probe.predict_proba(X), atol=1e-5)


def test_a_class_that_was_never_seen_is_never_chosen(digits):
    X, y = digits
    model = NearestMeanClassifier().partial_fit(X, y, classes=[*range(10), 99])
    head = head_of([model])
    values = head(torch.from_numpy(X))
    np.testing.assert_array_equal(np.array(head.classes)[head.chosen(values)], model.predict(X))
    np.testing.assert_allclose(head.probabilities(values), model.predict_proba(X), atol=1e-5)


def test_scaling_and_components_fold_into_one_matrix(digits):
    X, y = digits
    model = fitted([StandardScaler(), PCA(8, whiten=True), StandardScaler(), LinearProbeClassifier()], X, y)  # fmt: skip
    head = head_of([step for _, step in model.steps])
    assert len(head.layers) == 1 and head.is_affine
    assert head.layers[0].weight.shape == (10, 64)
    assert not head_of([NearestMeanClassifier().fit(X, y)]).is_affine


@pytest.mark.parametrize(
    "steps, named",
    [
        ([KNeighborsClassifier()], "A KNeighborsClassifier"),
        ([MinMaxScaler(), LinearSVC()], "A MinMaxScaler"),
        ([SVC(kernel="poly")], "A SVC with kernel='poly'"),
        ([SVC(break_ties=True)], "break_ties=True"),
        ([SVC(decision_function_shape="ovo")], "decision_function_shape='ovo'"),
        ([Nystroem(kernel="poly", n_components=9), LinearSVC()], "A Nystroem with kernel='poly'"),
        ([TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square)], "transformer"),
    ],
)  # fmt: skip
def test_what_has_no_form_is_refused_in_one_sentence(steps, named, digits):
    X, y = digits
    model = fitted(steps, X, y)
    with pytest.raises(ModelError, match=named) as error:
        head_of([step for _, step in model.steps])
    assert "\n" not in str(error.value)


def test_every_head_that_model_files_hold_has_layers_or_is_known_to_have_none():
    of_views_or_tasks = {
        "AttentionPoolingClassifier", "MultiTaskHead", "ViewPooling", "ViewsClassifier",
    }  # fmt: skip
    saved = {
        name
        for name, schema in CLASSES.items()
        if schema.module.startswith("featuretl.heads.") and "_solver" not in schema.module
    }
    assert saved - of_views_or_tasks == {name for name in heads_module._HEADS if name in saved}
