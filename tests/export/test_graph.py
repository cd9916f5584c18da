"""The ONNX graph of a head has the outputs of the estimator, for any n."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    LinearProbeRegressor,
    NearestMeanClassifier,
    SVMProbeClassifier,
)
from featuretl.export.graph import Outputs, Session, merged
from featuretl.networks.heads import head_of
from featuretl.runtimes.alternatives import export_any_number

pytestmark = pytest.mark.usefixtures("exported_once")
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["RBF SVM", "labels", "numbers"])
def test_heads_in_onnx(kind, photos):
    X = ImageEmbedder("test_resnet", weights="random", cache=None).transform(photos)
    three = np.array([0, 1, 2] * 8)
    rbf = {"C": 1.0, "kernel": "rbf", "gamma": "scale", "cv": 2, "random_state": 0}
    head = {
        "RBF SVM": lambda: SVMProbeClassifier(**rbf).fit(X, three),
        "labels": lambda: LinearProbeClassifier().fit(X, np.stack([three > 1, three > 0], 1) * 1),
        "numbers": lambda: LinearProbeRegressor().fit(X, np.stack([three, three**2], 1)),
    }[kind]()
    network = head_of([head])
    outputs = Outputs(network)
    model = export_any_number(outputs, X.shape[1:], ["images"], outputs.names)
    found = Session(model)(iter([torch.from_numpy(X[:3]), torch.from_numpy(X[3:4])]))
    if kind == "numbers":
        assert list(found) == ["prediction"]
        np.testing.assert_allclose(found["prediction"], head.predict(X[:4]), atol=1e-3)
        return
    has_proba = hasattr(head, "predict_proba")
    assert list(found) == ["decision", *["probabilities"] * has_proba, "label"]
    np.testing.assert_allclose(found["decision"], head.decision_function(X[:4]), atol=1e-4)
    predicted = head.predict(X[:4])
    expected = predicted if kind == "labels" else np.searchsorted(network.classes, predicted)
    np.testing.assert_array_equal(found["label"], expected)
    if has_proba:
        np.testing.assert_allclose(found["probabilities"], head.predict_proba(X[:4]), atol=1e-5)


@pytest.mark.parametrize(
    ("head", "y", "shapes"),
    [
        (NearestMeanClassifier(), [0, 1] * 6, {"decision": (12,), "probabilities": (12, 2), "label": (12,)}),
        (NearestMeanClassifier(), [0, 1, 2] * 4, {"decision": (12, 3), "probabilities": (12, 3), "label": (12,)}),
        (SVMProbeClassifier(C=1.0, calibrate=False), [0, 1] * 6, {"decision": (12,), "label": (12,)}),
        (LinearProbeClassifier(), [[0, 1], [1, 0]] * 6, {"decision": (12, 2), "probabilities": (12, 2), "label": (12, 2)}),
        (LinearProbeRegressor(), np.arange(12.0), {"prediction": (12,)}),
        (LinearProbeRegressor(), np.arange(12.0)[:, None], {"prediction": (12, 1)}),
    ],
    ids=["two classes", "three classes", "no probabilities", "labels", "a number", "a column"],
)  # fmt: skip
def test_outputs_have_the_shapes_of_the_model_in_python(head, y, shapes):
    outputs = Outputs(head_of([head.fit(ROWS, np.array(y))]))
    found = dict(zip(outputs.names, outputs(torch.from_numpy(ROWS)), strict=True))
    assert {name: tuple(values.shape) for name, values in found.items()} == shapes
    methods = {
        "decision": "decision_function",
        "probabilities": "predict_proba",
        "label": "predict",
    }
    for name, values in found.items():
        expected = getattr(head, methods.get(name, "predict"))(ROWS)
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_a_merged_graph_is_the_head_of_the_embedding_with_metadata():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    head = LinearProbeRegressor().fit(ROWS, np.arange(12.0))
    outputs = Outputs(head_of([head]))
    graph = merged(
        export_any_number(backbone, (3, 2, 2), ["images"], ["embedding"]),
        export_any_number(outputs, (4,), ["embedding"], outputs.names),
        {"task": "regression"},
    )
    model = onnx.load_from_string(graph)
    assert [node.name for node in model.graph.input] == ["images"]
    assert [node.name for node in model.graph.output] == ["prediction"]
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"task": "regression"}
    images = torch.randn(5, 3, 2, 2)
    found = Session(graph)(iter([images[:4], images[4:]]))["prediction"]
    with torch.no_grad():
        expected = head.predict(backbone(images).numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
