"""The classes of model files: attributes that do not fit together are refused."""

import copy

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.svm import SVC

from featuretl import FineTuneClassifier, MultiTaskHead, SVMProbeClassifier, load_model, save_model
from featuretl.exceptions import BackboneError, ModelError
from featuretl.finetune import Training


@pytest.fixture(scope="module")
def tuned(photos):
    model = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, head=("mlp", 4), learning_rate=0.003,
        epochs=1, augment="none", cache=None, random_state=0,
    )  # fmt: skip
    return model.fit(photos[::4], ["a", "b"] * 3)


def _of_state(name, value):
    return lambda model, tensors: model["state"].__setitem__(name, value)


def _of_head(name, value):
    return lambda model, tensors: model["state"]["estimators_"][1]["state"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("support_", lambda a: a + 10**6),
        ("support_", lambda a: -a),
        ("_n_support", lambda a: a * 1000),
        ("_dual_coef_", lambda a: a[:1]),
        ("_intercept_", lambda a: a[:1]),
        ("support_vectors_", lambda a: a[:, :1]),
        ("_dual_coef_", lambda a: a.astype(np.float32)),
    ],
)
def test_libsvm_is_not_given_what_it_would_believe(
    attribute, change, forge, model_file, iris, assert_refused
):
    save_model(SVC().fit(*iris), model_file)

    def forged(model, tensors):
        name = model["state"][attribute]["array"]
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    assert_refused(forge(forged), "do not fit together|must be")


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("tensors", "0" * 64, "not those that this model was fine-tuned from"),
        ("_head", {"tuple": ["mlp", 10**12]}, "Tuned do not fit together"),
        ("_head", "evil", "Tuned do not fit together"),
        ("n_blocks", 10**9, "blocks, fewer than"),
        ("state", {"dict": []}, "cannot be loaded"),
    ],
)
def test_forged_tuned_networks_are_refused(attribute, value, message, tuned, forge, model_file):
    save_model(tuned, model_file)
    forge(lambda model, _: model["state"]["_tuned"]["state"].__setitem__(attribute, value))
    with pytest.raises((ModelError, BackboneError), match=message):
        load_model(model_file)


def test_forged_settings_of_training_are_refused(tuned, forge, model_file):
    tuned = copy.copy(tuned).set_params(training=Training(optimizer="adam"))
    save_model(tuned, model_file)
    assert load_model(model_file).training == tuned.training
    forge(lambda model, _: model["state"]["training"]["state"].__setitem__("optimizer", "sgdd"))
    with pytest.raises(ModelError, match="do not fit together"):
        load_model(model_file)


def test_parameters_of_earlier_versions_are_skipped(tuned, forge, model_file):
    save_model(tuned, model_file)
    twin = load_model(forge(_of_state("label_smoothing", 0.1)))
    assert twin.get_params().keys() == tuned.get_params().keys()
    X, y = load_iris(return_X_y=True)
    head = SVMProbeClassifier(kernel="rbf").fit(X, y)
    save_model(head, model_file)
    twin = load_model(
        forge(lambda model, _: model["state"].update(approximate="auto", n_components=1000))
    )
    np.testing.assert_array_equal(twin.decision_function(X), head.decision_function(X))
    assert twin.get_params() == head.get_params()


@pytest.mark.parametrize(
    "change",
    [
        _of_state("tasks_", {"dict": [["a", "regression"]]}),
        _of_state("tasks_", {"dict": [["a", "regression"], ["b", "classification"]]}),
        _of_state("tasks_", ["a", "b"]),
        _of_state("ranges_", {"dict": []}),
        _of_state("ranges_", {"dict": [["b", {"tuple": ["<script>", 1.0]}]]}),
        _of_state("estimators_", [1, 2]),
        lambda model, tensors: model["state"]["estimators_"].__setitem__(0, copy.deepcopy(model)),
        _of_head("n_features_in_", 10**6),
        _of_head("coef_", {"array": "0"}),
    ],
)
def test_forged_tasks_are_refused(change, iris, forge, model_file, assert_refused):
    y = {"a": iris[1], "b": iris[0][:, 1]}
    save_model(MultiTaskHead().fit(iris[0], y), model_file)
    assert_refused(forge(change))
