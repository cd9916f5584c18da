"""The 24 crops with labels, and quick settings."""

from functools import partial

import pytest

from featuretl import TransferClassifier
from featuretl.transfer.tasks import Classes, Numbers


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    monkeypatch.setattr("featuretl.transfer.problem._EPOCHS", (4, 4))
    for task in (Classes, Numbers):
        monkeypatch.setattr(
            task, "fine_tune", staticmethod(partial(task.fine_tune, augment="none"))
        )


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
        defaults = {"cache": shared_cache, "random_state": 0, "cv": 3}
        return kind(strategy, **(defaults | parameters))

    return make
