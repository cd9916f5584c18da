"""Fixtures for tests of reports: crops of photographs, their embeddings and a model."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier


@pytest.fixture(scope="package")
def labels(photos):
    return np.array([path.split("/")[-2] for path in photos])


@pytest.fixture(scope="package")
def embedder(shared_cache):
    return ImageEmbedder(cache=shared_cache)


@pytest.fixture(scope="package")
def embeddings(photos, embedder):
    return embedder.transform(photos)


@pytest.fixture(scope="package")
def model(photos, labels, embedder):
    """A pipeline trained on the first eight crops of each photograph."""
    rows = [*range(8), *range(12, 20)]
    return make_pipeline(embedder, LinearProbeClassifier()).fit(
        [photos[i] for i in rows], labels[rows]
    )
