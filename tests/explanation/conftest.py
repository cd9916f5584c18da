"""Fixtures: the classes of the photographs, and pipelines on a tiny network."""

import pytest
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder


@pytest.fixture(scope="package")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="package")
def small():
    """A function that fits a pipeline of a tiny network with random weights and a head."""

    def fitted(head, photos, y, backbone="test_resnet", **parameters):
        embedder = ImageEmbedder(backbone, weights="random", cache=None, **parameters)
        return make_pipeline(embedder, head).fit(photos, y)

    return fitted
