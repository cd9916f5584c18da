"""Models are cached in files, which are replaced if they cannot be used."""

import pytest

from featuretl.runtimes import onnx


def test_a_model_is_made_once_and_an_unusable_file_is_replaced(tmp_path):
    file, made = tmp_path / "models" / "a.onnx", []

    def make():
        made.append(b"model")
        return b"model"

    def start(model):
        if model != b"model":
            raise ValueError("not a model")
        return model.decode()

    for _ in range(2):
        assert onnx.cached(file, make, start) == "model"
    assert len(made) == 1
    file.write_bytes(b"torn")
    assert onnx.cached(file, make, start) == "model"
    assert (len(made), file.read_bytes()) == (2, b"model")
    assert onnx.cached(None, make, start) == "model"
    assert len(made) == 3


def test_a_model_that_does_not_start_is_not_kept(tmp_path):
    def fail(model):
        raise ValueError("unusable")

    with pytest.raises(ValueError, match="unusable"):
        onnx.cached(tmp_path / "a.onnx", lambda: b"model", fail)
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_kept_is_used(tmp_path):
    (tmp_path / "models").touch()  # a file where the folder should be
    file = tmp_path / "models" / "a.onnx"
    assert onnx.cached(file, lambda: b"model", bytes.decode) == "model"
