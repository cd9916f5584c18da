"""Malicious, damaged, newer and unrelated files raise one-line errors; nothing is executed."""

import copy
import functools
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    MultiTaskHead,
    SVMProbeClassifier,
    load_model,
    read_card,
    save_model,
)
from featuretl.exceptions import BackboneError, FeatureTLError, FeatureTLWarning, ModelError
from featuretl.finetune import Training
from featuretl.models.format import read_file


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def assert_refused(path, message="cannot be loaded"):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil", bytes(10**7))


def pickled(path):
    path.write_bytes(pickle.dumps(Bomb()))


def huge_header(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def huge_tensor(path):
    header = json.dumps({"0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


def nested(path):
    text = b'{"__metadata__":' + b"[" * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.mark.parametrize(
    "write",
    [
        zip_bomb,
        pickled,
        huge_header,
        huge_tensor,
        nested,
        lambda path: path.touch(),
        lambda path: path.write_text("<html>404</html>"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
    ],
)
def test_other_files_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.featuretl"
    write(path)
    assert_refused(path, "cannot be loaded as a model")
    with pytest.raises(ModelError, match="cannot be loaded as a model"):
        read_card(path)
    assert not (tmp_path / "executed").exists()


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    for read in (load_model, read_card):
        with pytest.raises(ModelError, match=r"none\.featuretl' cannot be read: No such file\.$"):
            read(tmp_path / "none.featuretl")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "model.featuretl")
    assert_refused(tmp_path / "model.featuretl", "safetensors file without a model")


def test_a_newer_format_says_to_upgrade(forge):
    path = forge(version="2")
    with pytest.raises(ModelError, match="has format 2 and this featuretl reads format 1; upgrade"):
        load_model(path)


@pytest.mark.parametrize("version", ["", "0", "-1", "one", "1" * 5000])
def test_a_version_that_is_none_is_refused(version, forge):
    with pytest.raises(ModelError):
        load_model(forge(version=version))


def test_hostile_names_are_escaped(tmp_path):
    path = tmp_path / "bad\n\x1b[31m.featuretl"
    path.write_text("x")
    assert_refused(path, r"bad\\\\n\\\\x1b\[31m")


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
def test_forged_models_are_refused(name, forge):
    change, message = CHANGES[name]
    assert_refused(forge(change), message)


@pytest.mark.parametrize(
    "raw", ["", "[]", "1", "null", "{", "[" * 100_000, '{"class": 1}', "1" * 9999]
)
def test_forged_texts_are_refused(raw, forge):
    assert_refused(forge(raw=raw))


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
def test_libsvm_is_not_given_what_it_would_believe(attribute, change, forge, model_file, iris):
    save_model(SVC().fit(*iris), model_file)
    assert_refused(forge(tensor(attribute, change)), "do not fit together|must be")


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


@pytest.fixture(scope="module")
def pipeline(photos):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=None)
    model = make_pipeline(embedder, LinearProbeClassifier())
    return model.fit(photos[::4], ["a", "b"] * 3)


@pytest.mark.parametrize("name", DEEP_CHANGES)
def test_forged_pipelines_are_refused(name, pipeline, forge, model_file):
    path, attribute, value, message = DEEP_CHANGES[name]
    save_model(pipeline, model_file)
    forge(lambda model, _: descend(model, path).__setitem__(attribute, value))
    with pytest.raises((ModelError, BackboneError), match=message) as caught:
        load_model(model_file)
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_steps_is_refused(pipeline, forge, model_file):
    save_model(pipeline, model_file)
    assert_refused(
        forge(lambda model, _: model["state"].pop("steps")), "lacks the attribute 'steps'"
    )


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


@pytest.fixture(scope="module")
def tuned(photos):
    model = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, head=("mlp", 4), learning_rate=0.003,
        epochs=1, augment="none", cache=None, random_state=0,
    )  # fmt: skip
    return model.fit(photos[::4], ["a", "b"] * 3)


def test_forged_settings_of_training_are_refused(tuned, forge, model_file):
    tuned = copy.copy(tuned).set_params(training=Training(optimizer="adam"))
    save_model(tuned, model_file)
    assert load_model(model_file).training == tuned.training
    forge(lambda model, _: model["state"]["training"]["state"].__setitem__("optimizer", "sgdd"))
    with pytest.raises(ModelError, match="do not fit together"):
        load_model(model_file)


def test_parameters_of_earlier_versions_are_skipped(tuned, forge, model_file):
    save_model(tuned, model_file)
    twin = load_model(forge(replace("label_smoothing", 0.1)))
    assert twin.get_params().keys() == tuned.get_params().keys()
    X, y = load_iris(return_X_y=True)
    head = SVMProbeClassifier(kernel="rbf").fit(X, y)
    save_model(head, model_file)
    twin = load_model(
        forge(lambda model, _: model["state"].update(approximate="auto", n_components=1000))
    )
    np.testing.assert_array_equal(twin.decision_function(X), head.decision_function(X))
    assert twin.get_params() == head.get_params()


def test_images_that_are_prepared_otherwise_are_warned_of(pipeline, forge, model_file):
    save_model(pipeline, model_file)

    def older(model, _):
        state = descend(model, STEP)
        recipe = json.loads(state["recipe"])
        recipe["decode"]["version"] = 0
        state["recipe"] = json.dumps(recipe)

    with pytest.warns(FeatureTLWarning, match="embeddings whose decode differ from"):
        load_model(forge(older))


def test_every_truncation_is_refused(model_file):
    data = model_file.read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        model_file.write_bytes(data[:size])
        assert_refused(model_file)
    model_file.write_bytes(data + b"x")
    assert_refused(model_file)


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


def _of_state(name, value):
    return lambda model, tensors: model["state"].__setitem__(name, value)


def _of_head(name, value):
    return lambda model, tensors: model["state"]["estimators_"][1]["state"].__setitem__(name, value)


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
def test_forged_tasks_are_refused(change, iris, forge, model_file):
    y = {"a": iris[1], "b": iris[0][:, 1]}
    save_model(MultiTaskHead().fit(iris[0], y), model_file)
    assert_refused(forge(change))
