"""The 24 crops with labels, and quick settings."""

import pytest

from featuretl import TransferClassifier


@pytest.fixture(scope="session")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="session")
def few(photos, labels):
    """Three photographs of each of two classes."""
    chosen = [0, 4, 8, 12, 16, 20]
    return [photos[i] for i in chosen], [labels[i] for i in chosen]


@pytest.fixture
def chooser(shared_cache):
    def make(strategy="auto", kind=TransferClassifier, **parameters):
        return kind(strategy, **({"cache": shared_cache, "random_state": 0} | parameters))

    return make
