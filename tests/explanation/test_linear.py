"""feature_maps: explanations of linear heads without PyTorch are those with PyTorch."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featuretl import ImageEmbedder, LinearProbeClassifier, LinearProbeRegressor, explain
from featuretl.explanation import linear
from featuretl.explanation.evidence import evidence
from featuretl.explanation.linear import feature_maps
from featuretl.images.inputs import read
from featuretl.models.fitted import Fitted
from featuretl.networks.network import network_of

THREE = [f"class {i % 3}" for i in range(24)]
PAIRS = [["left"] if i % 2 else ["left", "right"] for i in range(24)]


@pytest.fixture
def without_torch(monkeypatch):
    """PyTorch is imported here, but `feature_maps` behaves as in a process that has not done so."""
    monkeypatch.setattr(linear, "needs_no_torch", lambda device: True)


@pytest.mark.parametrize(
    ("head", "y"),
    [
        (LinearProbeClassifier(), None),
        (LinearProbeClassifier(), THREE),
        (LinearProbeClassifier(calibrate=True), PAIRS),
        (LogisticRegression(), None),
        (LinearSVC(), THREE),
        (LinearProbeRegressor(), np.arange(24.0)),
        (Ridge(), np.arange(48.0).reshape(24, 2)),
    ],
)
def test_they_are_those_of_the_network(head, y, photos, labels, shared_cache, without_torch):
    model = make_pipeline(ImageEmbedder(cache=shared_cache), head)
    model.fit(photos, labels if y is None else y)
    maps, network = feature_maps(Fitted.of_images(model), "auto"), network_of(model, "cpu")
    assert maps.head.classes == network.head.classes
    batch = maps.backbone.batch([maps.backbone.prepare(read(photos[0]).pixels())])
    values = maps.values(batch)
    np.testing.assert_allclose(values, network.values(torch.from_numpy(batch)), atol=1e-4)
    weight = np.eye(values.shape[1], dtype=np.float32)[-1]
    found = maps.evidence(batch, weight)
    exact = evidence(network, torch.from_numpy(batch), weight)
    assert found.method == exact.method
    assert found.bias == pytest.approx(exact.bias, abs=1e-5)
    np.testing.assert_allclose(found.heat, exact.heat, atol=1e-3 * np.abs(exact.heat).max())


def test_explain_uses_them(photos, labels, shared_cache, without_torch, monkeypatch):
    monkeypatch.setattr("featuretl.networks.network.network_of", None)
    images = [photos[0], photos[-1]]
    model = make_pipeline(ImageEmbedder(cache=shared_cache), LinearProbeClassifier())
    found = explain(model.fit(photos, labels), images)
    assert [e.target for e in found] == ["flower", "temple"] == model.predict(images).tolist()
    for explanation in found:
        assert explanation.heat.mean() + explanation.bias == pytest.approx(explanation.score)


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ([StandardScaler(), LinearProbeClassifier()], {}),
        ([LinearProbeClassifier()], {"layers": [-1]}),
        ([LinearProbeClassifier()], {"weights": "random"}),
        ([LinearProbeClassifier()], {"runtime": "torch"}),
        ([LinearRegression()], {}),
    ],
)
def test_every_other_model_needs_pytorch(steps, options, photos, labels, without_torch):
    y = np.arange(6.0) if isinstance(steps[-1], LinearRegression) else labels[::4]
    model = make_pipeline(ImageEmbedder(cache=None, **options), *steps)
    model.fit(photos[::4], y)
    assert feature_maps(Fitted.of_images(model), "auto") is None


def test_changed_weights_leave_it_to_pytorch(photos, labels, without_torch, monkeypatch):
    model = make_pipeline(ImageEmbedder(cache=None), LinearProbeClassifier())
    fitted = Fitted.of_images(model.fit(photos[::4], labels[::4]))
    monkeypatch.setattr(linear, "has_lite_golden", lambda *_: False)
    assert feature_maps(fitted, "cpu") is None
