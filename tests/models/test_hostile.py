"""Forged content with a valid checksum raises one-line errors; nothing is executed."""

import functools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.svm import SVC

from featuretl import LinearProbeClassifier, load_model, save_model
from featuretl.exceptions import BackboneError, FeatureTLError, ModelError
from featuretl.models.format import read_file


def replace(attribute, value):
    def change(model, tensors):
        model["state"][attribute] = value

    return change


def tensor(attribute, change_array):
    def change(model, tensors):
        name = model["state"][attribute]["array"]
        tensors[name] = np.ascontiguousarray(change_array(tensors[name]))

    return change


def rename(name):
    def change(model, tensors):
        model["class"] = name

    return change


CHANGES = {
    "an unknown class": (rename("os.system"), "class 'os.system', which is not allowed"),
    "another class": (rename("Ridge"), "its Ridge has the attribute"),
    "a class of no estimator": (rename("ClassSchema"), "not allowed"),
    "an extra attribute": (replace("predict", 1), "'predict', which is not allowed"),
    "a dunder": (replace("__class__", "x"), "'__class__', which is not allowed"),
    "a path of the machine": (replace("cache", "/etc"), "'cache', which is not allowed"),
    "a missing attribute": (lambda m, t: m["state"].pop("coef_"), "lacks the attribute 'coef_'"),
    "nothing at all": (lambda m, t: m["state"].clear(), "cannot be loaded"),
    "a text for an array": (replace("coef_", "x"), r"coef_ .* must be float\[k,d\]"),
    "another shape": (tensor("coef_", lambda a: a[:, :3]), r"coef_ .* must be|n_features_in_"),
    "fewer rows": (tensor("coef_", lambda a: a[:2]), "intercept_|outputs"),
    "another dtype": (tensor("coef_", lambda a: a.astype(np.int64)), r"got int64 \(3, 4\)"),
    "one axis": (tensor("coef_", np.ravel), "coef_"),
    "a huge size": (replace("n_features_in_", 10**15), "n_features_in_"),
    "a class too many": (
        replace("classes_", {"strings": list("abcd"), "dtype": "U"}),
        "3 outputs for 4 classes",
    ),
    "objects": (replace("classes_", {"strings": [["a"], {}], "dtype": "O"}), "array of strings"),
    "another dtype of text": (replace("classes_", {"strings": ["a"], "dtype": "M8"}), "strings"),
    "no such tensor": (replace("coef_", {"array": "99"}), "KeyError"),
    "an unknown kind": (replace("coef_", {"pickle": "gASV"}), "unknown kind"),
    "a float that is none": (replace("C_", {"float": "1e999"}), "cannot be loaded"),
    "a dict of lists": (replace("C", {"dict": [[[1], 2]]}), "unhashable"),
    "a deep object": (replace("path_", {"class": "Tuned", "state": {}}), "lacks the attribute"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_forged_models_are_refused(name, forge, assert_refused):
    change, message = CHANGES[name]
    assert_refused(forge(change), message)


@pytest.mark.parametrize(
    "raw", ["", "[]", "1", "null", "{", "[" * 100_000, '{"class": 1}', "1" * 9999]
)
def test_forged_texts_are_refused(raw, forge, assert_refused):
    assert_refused(forge(raw=raw))


def descend(model, path):
    for step in path:
        model = model[step]
    return model


STEP, HEAD = ("state", "steps", 0, "tuple", 1, "state"), ("state", "steps", 1, "tuple", 1, "state")
DEEP_CHANGES = {
    "a path of weights": (STEP, "weights", "/etc/passwd", "weights are neither"),
    "a backbone that is an array": (STEP, "backbone", {"array": "0"}, "the name of a timm model"),
    "an unknown backbone": (STEP, "backbone", "evil/model", "knows no model"),
    "a backbone that is a path": (STEP, "backbone", "local-dir:/etc", "or have a path"),
    "a backbone of no repository": (STEP, "backbone", "hf_hub:../evil", "name a repository"),
    "layers that are none": (STEP, "layers", {"dict": []}, "'layers' parameter"),
    "other weights": (STEP, "recipe", '{"backbone":{}}', "are not those"),
    "no recipe": (STEP, "recipe", "", "cannot be loaded"),
    "a head of other columns": (HEAD, "n_features_in_", 7, "n_features_in_"),
    "a cache": (STEP, "cache", "/tmp", "'cache', which is not allowed"),
    "a file to unpickle": (("state",), "memory", "/tmp", "'memory', which is not allowed"),
    "steps that are none": (("state",), "steps", [], "cannot be loaded"),
}


@pytest.mark.parametrize("name", DEEP_CHANGES)
def test_forged_pipelines_are_refused(name, pipeline, forge, model_file):
    path, attribute, value, message = DEEP_CHANGES[name]
    save_model(pipeline, model_file)
    forge(lambda model, _: descend(model, path).__setitem__(attribute, value))
    with pytest.raises((ModelError, BackboneError), match=message) as caught:
        load_model(model_file)
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_steps_is_refused(pipeline, forge, model_file, assert_refused):
    save_model(pipeline, model_file)
    assert_refused(
        forge(lambda model, _: model["state"].pop("steps")), "lacks the attribute 'steps'"
    )


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_are_refused_or_change_nothing(changes, model_file, iris):
    model = LinearProbeClassifier().fit(*iris)
    save_model(model, model_file)
    data = bytearray(model_file.read_bytes())
    for where, byte in changes:
        data[int(where * (len(data) - 1))] = byte
    model_file.write_bytes(data)
    try:
        twin = load_model(model_file)
    except FeatureTLError as error:
        assert "\n" not in str(error)
        return
    np.testing.assert_array_equal(twin.predict_proba(iris[0]), model.predict_proba(iris[0]))


@functools.cache
def fitted_once(make):
    X, y = load_iris(return_X_y=True)
    return make().fit(X.astype(np.float32), y)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["class", "state", "array", "order", "dict", "tuple", "scalar", "float"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@pytest.mark.parametrize("make", [LinearProbeClassifier, SVC])
@given(data=st.data())
def test_forged_values_are_refused_or_the_model_predicts(make, data, forge, model_file, iris):
    save_model(fitted_once(make), model_file)
    state = json.loads(read_file(model_file)[0])["state"]
    attribute = data.draw(st.sampled_from(sorted(state)))
    forge(replace(attribute, data.draw(JSON)))
    try:
        twin = load_model(model_file)
    except FeatureTLError as error:
        assert "\n" not in str(error)
        return
    assert len(twin.predict(iris[0])) == 150
