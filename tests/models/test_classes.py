"""The classes of model files: attributes that do not fit together are refused."""

import copy
import inspect
import re

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.svm import SVC

from featuretl import (
    DomainAdaptedClassifier,
    FineTuneClassifier,
    LinearProbeClassifier,
    MultiTaskHead,
    NoveltyDetector,
    SVMProbeClassifier,
    load_model,
    save_model,
)
from featuretl.exceptions import BackboneError, ModelError
from featuretl.finetune import Training
from featuretl.heads import AttentionPoolingClassifier, ViewsClassifier
from featuretl.models.classes import CLASSES, FORMER
from featuretl.models.schema import IGNORED, parameters


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


@pytest.mark.parametrize("name", CLASSES)
def test_the_schema_of_a_class_is_consistent(name):
    schema = CLASSES[name]
    cls = schema.load(name)
    given = parameters(cls)
    # A parameter is listed only to restrict its kind, and a class without it has the schema too.
    assert all(schema.attributes[name][1] for name in {*given} & {*schema.attributes})
    assert not {*given} & {*schema.former}
    not_saved = {*schema.fresh, *schema.left_out, *IGNORED}
    assert not not_saved & {*schema.attributes}
    if not given:  # a plain class has no other attributes than those listed
        assert schema.attributes
    classes = re.findall(r"[A-Z]\w+", " ".join(kind for kind, _ in schema.attributes.values()))
    assert {*classes} <= {*CLASSES, "Bunch"}


def test_former_classes_have_successors_with_the_given_parameters():
    for former, (name, own) in FORMER.items():
        assert former not in CLASSES
        assert {*own} <= {*inspect.signature(CLASSES[name].load(name)).parameters}


def refused(model, model_file, forge, assert_refused, *path):
    """Assert that a model file is refused once the attribute at `path` has the last value."""
    save_model(model, model_file)
    load_model(model_file)
    *steps, attribute, value = path

    def change(packed, tensors):
        for step in steps:
            packed = packed["state"][step]
        packed["state"][attribute] = value

    assert_refused(forge(change), "do not fit together|must be|cannot be loaded")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("n_neighbors", 0),
        ("n_neighbors", 10**6),
        ("n_neighbors", "5"),
        ("level", 0.9),
        ("level", {"float": "nan"}),
        ("calibration_worth_", 10.0**9),
        ("calibration_worth_", {"float": "nan"}),
        ("offset_", {"float": "nan"}),
    ],
)
def test_forged_novelty_detectors_are_refused(
    attribute, value, iris, model_file, forge, assert_refused
):
    detector = NoveltyDetector(random_state=0).fit(iris[0])
    refused(detector, model_file, forge, assert_refused, attribute, value)


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("calibration_", lambda a: a[::-1]),
        ("calibration_", lambda a: a[:0]),
        ("calibration_", lambda a: a + np.inf),
        ("references_", lambda a: a * np.nan),
        ("references_", lambda a: a[:0]),
    ],
)
def test_forged_references_are_refused(attribute, change, iris, model_file, forge, assert_refused):
    save_model(NoveltyDetector(random_state=0).fit(iris[0]), model_file)

    def forged(model, tensors):
        name = model["state"][attribute]["array"]
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    assert_refused(forge(forged), "NoveltyDetector do not fit together")


@pytest.mark.parametrize(
    "path",
    [
        ("n_views", 4),
        ("n_views", 0),
        ("n_views", 2.0),
        ("n_features_in_", 6),
        ("classes_", {"strings": list("abc"), "dtype": "U"}),
        ("estimator_", None),
        ("estimator_", "n_features_in_", 4),
    ],
    ids=str,
)
def test_forged_views_are_refused(path, iris, model_file, forge, assert_refused):
    model = ViewsClassifier(2, LinearProbeClassifier()).fit(*iris)
    refused(model, model_file, forge, assert_refused, *path)


@pytest.mark.parametrize(
    "path",
    [
        ("method_", 1),
        ("n_features_in_", 6),
        ("classes_", {"strings": list("abz"), "dtype": "U"}),
        ("estimator_", None),
    ],
    ids=str,
)
def test_forged_adaptation_is_refused(path, iris, model_file, forge, assert_refused):
    X, y = iris
    model = DomainAdaptedClassifier().fit(X, y, X[::2] + 1)
    refused(model, model_file, forge, assert_refused, *path)


@pytest.mark.parametrize("path", [("n_views", 1), ("n_views", "2"), ("n_features_in_", 2)], ids=str)
def test_forged_attention_is_refused(path, iris, model_file, forge, assert_refused):
    model = AttentionPoolingClassifier(2).fit(*iris)
    refused(model, model_file, forge, assert_refused, *path)
