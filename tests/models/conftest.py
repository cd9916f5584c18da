"""Small data and models that tests share and do not modify."""

import json

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.datasets import load_iris

from featuretl import LinearProbeClassifier, save_model
from featuretl.models.format import digest_of, read_file


@pytest.fixture(scope="session")
def iris():
    """Rows, float32 (150, 4), and the names of their classes."""
    X, y = load_iris(return_X_y=True)
    return X.astype(np.float32), np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture
def model_file(tmp_path, iris):
    """The file of a linear probe."""
    path = tmp_path / "probe.featuretl"
    save_model(LinearProbeClassifier().fit(*iris), path)
    return path


@pytest.fixture
def forge(model_file):
    """Return a function that rewrites `model_file` with a change and a valid checksum."""

    def write(change=lambda model, tensors: None, version="1", raw=None):
        text, tensors = read_file(model_file)
        model = json.loads(text)
        change(model, tensors)
        text = raw if raw is not None else json.dumps(model)
        digest = digest_of(text, "{}", tensors)
        metadata = {"featuretl_format": version, "card": "{}", "model": text, "sha256": digest}
        model_file.write_bytes(save(tensors, metadata))
        return model_file

    return write
