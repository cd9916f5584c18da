"""Small data and models that tests share and do not modify."""

import json

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier, load_model, save_model
from featuretl.exceptions import ModelError
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


@pytest.fixture(scope="session")
def assert_refused():
    """Return a function that asserts that a file is refused with a sentence on one line."""

    def refused(path, message="cannot be loaded"):
        with pytest.raises(ModelError, match=message) as caught:
            load_model(path)
        text = str(caught.value)
        assert "\n" not in text
        assert text.endswith(".")

    return refused


@pytest.fixture(scope="session")
def pipeline(photos):
    """A probe on the embeddings of a small backbone, fitted to six photographs."""
    embedder = ImageEmbedder("test_resnet", weights="random", cache=None)
    model = make_pipeline(embedder, LinearProbeClassifier())
    return model.fit(photos[::4], ["a", "b"] * 3)
