"""A fitted model on the 24 crops, which many tests share."""

import numpy as np
import pytest

from featuretl import FineTuneClassifier
from featuretl.backbones.backbone import load_backbone
from featuretl.backbones.spec import BackboneSpec


@pytest.fixture(scope="session")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="session")
def trunk_cache(tmp_path_factory):
    """A cache of trunk activations that the tests of fine-tuning share."""
    return tmp_path_factory.mktemp("trunk-cache")


@pytest.fixture(scope="session")
def quick(trunk_cache):
    """Return a quick estimator: two epochs of one block at a given rate, on small images."""

    def make(kind=FineTuneClassifier, **parameters):
        defaults = {
            "backbone": BackboneSpec("tf_efficientnet_lite0", image_size=(128, 128)),
            "n_blocks": 1,
            "learning_rate": 0.003,
            "epochs": 2,
            "batch_size": 8,
            "augment": "none",
            "cache": trunk_cache,
            "random_state": 0,
        }
        return kind(**(defaults | parameters))

    return make


@pytest.fixture(scope="session")
def fitted(quick, photos, labels):
    return quick(epochs=3, augment="light").fit(photos, labels)


@pytest.fixture(scope="session")
def light(photos):
    """A regression target for each photograph."""
    return np.linspace(-1, 3, len(photos))


@pytest.fixture
def begun(quick, photos, labels):
    """A function that returns the task and the training settings of a quick estimator."""

    def make(**parameters):
        fitting = quick(**parameters)._begin(photos, labels, None, None, None)
        fitting._set_probe(fitting.rows, 1.0, soft=True)
        return fitting.task(fitting.rows), fitting.training(0.003)

    return make


@pytest.fixture(scope="session")
def tiny():
    """A small backbone with random weights."""
    return load_backbone("test_resnet", weights="random")
