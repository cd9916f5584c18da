"""The format of model files: unrelated, damaged and newer files, and where files are written."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from featuretl import (
    LinearProbeClassifier,
    NearestMeanClassifier,
    load_model,
    read_card,
    save_model,
)
from featuretl.exceptions import ModelError


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
        with pytest.raises(ModelError, match=r"none\.featuretl' cannot be read: No such file\.$"):
            read(tmp_path / "none.featuretl")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path, assert_refused):
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
