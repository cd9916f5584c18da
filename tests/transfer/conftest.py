"""The 24 crops with labels, and settings for short training on small images."""

from functools import partial

import pytest

from featuretl import FineTuneClassifier, FineTuneRegressor, TransferClassifier, finetune
from featuretl.backbones.spec import BackboneSpec


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    monkeypatch.setattr("featuretl.transfer.experiment._EPOCHS", (4, 4))
    for kind in (FineTuneClassifier, FineTuneRegressor):
        monkeypatch.setattr(finetune, kind.__name__, partial(kind, augment="none"))


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
        small = BackboneSpec("tf_efficientnet_lite0", image_size=(128, 128))
        defaults = {"backbone": small, "cache": shared_cache, "random_state": 0, "cv": 3}
        return kind(strategy, **(defaults | parameters))

    return make
