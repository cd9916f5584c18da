"""The format of model files: unrelated, damaged and newer files, and where files are written."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from safetensors import safe_open

from featuretl import (
    LinearProbeClassifier,
    NearestMeanClassifier,
    load_model,
    read_card,
    save_model,
)
from featuretl.exceptions import ModelError
from featuretl.models.format import check_target, digest_of, read_card_text, read_file, write_file


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


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
def test_other_files_are_refused(write, tmp_path, monkeypatch, assert_refused):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.featuretl"
    write(path)
    assert_refused(path, "cannot be loaded as a model")
    with pytest.raises(ModelError, match="cannot be loaded as a model"):
        read_card(path)
    assert not (tmp_path / "executed").exists()


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    for read in (load_model, read_card):
        with pytest.raises(ModelError, match=r"none\.featuretl.*No such file"):
            read(tmp_path / "none.featuretl")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path, assert_refused):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "model.featuretl")
    assert_refused(tmp_path / "model.featuretl", "safetensors file without a model")


def test_a_newer_format_says_to_upgrade(forge):
    path = forge(version="2")
    with pytest.raises(ModelError, match=r"format 2 .*format 1"):
        load_model(path)


@pytest.mark.parametrize("version", ["", "0", "-1", "one", "1" * 5000])
def test_a_version_that_is_none_is_refused(version, forge):
    with pytest.raises(ModelError):
        load_model(forge(version=version))


def test_hostile_names_are_escaped(tmp_path, assert_refused):
    path = tmp_path / "bad\n\x1b[31m.featuretl"
    path.write_text("x")
    assert_refused(path, r"bad\\\\n\\\\x1b\[31m")


def test_every_truncation_is_refused(model_file, assert_refused):
    data = model_file.read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        model_file.write_bytes(data[:size])
        assert_refused(model_file)
    model_file.write_bytes(data + b"x")
    assert_refused(model_file)


@pytest.mark.parametrize("name", ["model.pkl", "missing/model.featuretl"])
def test_the_place_is_checked(name, iris, tmp_path):
    with pytest.raises(ModelError, match=r"must end in \.featuretl|does not exist"):
        save_model(LinearProbeClassifier().fit(*iris), tmp_path / name)


def test_a_file_that_cannot_be_written_leaves_the_old_one(iris, model_file, monkeypatch):
    before = model_file.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featuretl.models.format.os.fsync", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save_model(NearestMeanClassifier().fit(*iris), model_file)
    assert model_file.read_bytes() == before
    assert [path.name for path in model_file.parent.iterdir()] == ["probe.featuretl"]


TENSORS = {"b": np.arange(4, dtype=np.int32), "a": np.asfortranarray(np.ones((2, 3)))}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "model.featuretl"
    write_file(path, '{"x": 1}', '{"y": 2}', TENSORS)
    model, tensors = read_file(path)
    assert (model, read_card_text(path)) == ('{"x": 1}', '{"y": 2}')
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(tensors[name], tensor)
    with safe_open(path, framework="numpy") as file:
        texts = file.metadata()
    assert texts["featuretl_format"] == "1"
    assert texts["sha256"] == digest_of(texts["model"], texts["card"], TENSORS)


def test_the_digest_covers_texts_names_types_shapes_and_bytes():
    digest = digest_of("model", "card", TENSORS)
    assert digest_of("model", "card", dict(reversed(TENSORS.items()))) == digest
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in TENSORS.items()}
    assert digest_of("model", "card", contiguous) == digest
    others = [
        ("model", "card", TENSORS | {"c": np.zeros(0)}),
        ("model", "card", TENSORS | {"b": TENSORS["b"].astype(np.uint32)}),
        ("model", "card", TENSORS | {"b": TENSORS["b"].reshape(2, 2)}),
        ("model", "card", TENSORS | {"b": TENSORS["b"] + 1}),
        ("model", "card", {"c": TENSORS["b"], "a": TENSORS["a"]}),
        ("model", "", TENSORS),
        ("card", "model", TENSORS),
    ]
    assert len({digest, *(digest_of(*other) for other in others)}) == len(others) + 1


def test_a_card_that_was_changed_is_read_and_the_model_is_not(model_file):
    data = model_file.read_bytes()
    assert data.count(b"LinearProbeClassifier") >= 2
    model_file.write_bytes(data.replace(b"LinearProbeClassifier", b"LinearProbeClassif1er", 1))
    with pytest.raises(ModelError, match="checksum"):
        load_model(model_file)
    assert read_card(model_file)["model"] in ("LinearProbeClassifier", "LinearProbeClassif1er")


@pytest.mark.parametrize("missing", ["card", "model", "sha256"])
def test_a_header_without_one_of_the_texts_is_refused(missing, tmp_path):
    from safetensors.numpy import save

    texts = dict.fromkeys(("card", "model", "sha256"), "{}") | {"featuretl_format": "1"}
    del texts[missing]
    path = tmp_path / "model.featuretl"
    path.write_bytes(save({}, texts))
    for read in (load_model, read_card):
        with pytest.raises(ModelError, match=f"no '{missing}'"):
            read(path)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_target("~/model.featuretl") == tmp_path / "model.featuretl"
    with pytest.raises(ModelError, match=r"\.featuretl"):
        check_target("~/model.FEATURETL")
