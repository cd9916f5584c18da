"""Models as networks: the same values from the same images; other models are refused."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featuretl import (
    FineTuneClassifier,
    FineTuneRegressor,
    ImageEmbedder,
    LinearProbeClassifier,
    NearestMeanClassifier,
    TransferClassifier,
)
from featuretl.exceptions import InputError, ModelError
from featuretl.networks.network import network_of

SMALL = {"backbone": "test_resnet", "weights": "random"}


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


def tuned(kind, y, photos, **parameters):
    quick = {"n_blocks": 1, "epochs": 1, "learning_rate": 0.003, "batch_size": 8, "augment": "none"}
    return kind(**SMALL, **quick, cache=None, random_state=0, **parameters).fit(photos, y)


@pytest.mark.parametrize("cache_trunk", [True, False])
def test_a_fine_tuned_classifier(cache_trunk, photos, labels):
    model = tuned(FineTuneClassifier, labels, photos, cache_trunk=cache_trunk)
    network = network_of(model, "cpu")
    found = network.values(network.batch(photos[:5]))[:, 0]
    expected = model.decision_function(photos[:5])
    # The cache keeps activations in float16.
    np.testing.assert_allclose(found, expected, atol=1e-2 if cache_trunk else 1e-5)
    assert network.head.is_affine


def test_a_fine_tuned_regressor(photos):
    y = np.column_stack([np.arange(24.0), np.ones(24)])
    model = tuned(FineTuneRegressor, y, photos, cache_trunk=False)
    network = network_of(model, "cpu")
    found = network.values(network.batch(photos[:5]))
    np.testing.assert_allclose(found, model.predict(photos[:5]), rtol=1e-4, atol=1e-4)


def test_a_chosen_model_is_its_winner(photos, labels):
    model = TransferClassifier("linear", **SMALL, test_size=None, cache=None, random_state=0)
    model.fit(photos, labels)
    network = network_of(model, "cpu")
    found = network.values(network.batch(photos[:3]))[:, 0]
    np.testing.assert_allclose(found, model.estimator_.decision_function(photos[:3]), atol=1e-4)


def test_a_network_is_its_own(photos, labels):
    """Changes do not affect the network of the embedder, which other threads use."""
    model = make_pipeline(ImageEmbedder(**SMALL, cache=None), NearestMeanClassifier())
    one, two = (network_of(model.fit(photos, labels), "cpu") for _ in range(2))
    assert one.embedding.model is not two.embedding.model
    assert one.embedding.model is not one.backbone.embedding.model


def test_what_takes_no_images_is_refused(photos, labels):
    head = LinearProbeClassifier().fit(np.eye(4, dtype=np.float32), [0, 0, 1, 1])
    with pytest.raises(InputError, match="LinearProbeClassifier"):
        network_of(head)
    low = ImageEmbedder(**SMALL, precision="bfloat16", cache=None)
    model = make_pipeline(low, NearestMeanClassifier()).fit(photos, labels)
    with pytest.raises(ModelError, match=r"bfloat16.*precision='float32'"):
        network_of(model)
