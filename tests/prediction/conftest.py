"""Fixtures: photographs with their classes and labels, two unreadable files, a tiny model."""

import pytest
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier
from featuretl.prediction import files as files_module
from featuretl.prediction import predict as prediction_module

BAD_NAME = "bad\n\x1b[31m,\u202e.jpg"


@pytest.fixture(scope="package")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="package")
def tiny(photos, labels, shared_cache):
    """A pipeline with a tiny network."""
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    return make_pipeline(embedder, LinearProbeClassifier()).fit(photos, labels)


@pytest.fixture
def small_batches(monkeypatch):
    for module in (prediction_module, files_module):
        monkeypatch.setattr(module, "BATCH", 5)


@pytest.fixture
def with_bad(photos, tmp_path):
    """The photographs with two unreadable ones at positions 3 and 20."""
    bad = tmp_path / BAD_NAME
    bad.write_text("<html>404</html>")
    return [*photos[:3], str(bad), *photos[3:19], str(tmp_path / "missing.jpg"), *photos[19:]]


@pytest.fixture(scope="package")
def tagged(photos, labels):
    """Label lists: the class, and "upper" for crops of the upper half; the first one is empty."""
    tags = [[label] + ["upper"] * (i % 12 < 6) for i, label in enumerate(labels)]
    return [[], *tags[1:]]
