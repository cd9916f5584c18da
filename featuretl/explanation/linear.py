"""Class activation maps of linear heads on packaged networks, without PyTorch."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np

from featuretl._core.types import Array
from featuretl.explanation.explanation import CAM, Evidence
from featuretl.models.fitted import Fitted
from featuretl.runtimes.choice import onnx_is_installed
from featuretl.runtimes.graph import GraphBackbone, needs_no_torch
from featuretl.runtimes.lite import has_lite_golden, lite_graph, lite_recipe

_LINEAR = (
    "LinearProbeClassifier",
    "LinearProbeRegressor",
    "LinearSVC",
    "LogisticRegression",
    "Ridge",
)


class FeatureMaps:
    """A linear head on the averages of feature maps, with the members of `Network` for `explain`.

    Its score is the average of the scores of all positions, so that their map is exact.
    """

    def __init__(self, backbone: GraphBackbone, fitted: Fitted) -> None:
        self.backbone = backbone
        self.head = SimpleNamespace(
            classes=None if fitted.classes is None else fitted.classes.tolist(),
            link="labels" if fitted.kind == "multilabel" else "none",
        )
        self._coef = np.atleast_2d(fitted.head.coef_).astype(np.float32)
        self._intercept = np.broadcast_to(fitted.head.intercept_, len(self._coef))

    def values(self, batch: Array) -> Array:
        """Return the values, float32 (n, k), of an input, float32 (n, 3, height, width)."""
        embeddings = self.backbone.forward(batch).mean(axis=(2, 3))
        return np.asarray(embeddings @ self._coef.T + self._intercept, np.float32)

    def evidence(self, batch: Array, weight: Array) -> Evidence:
        """Return the evidence for ``values @ weight``, weight (k,), in one image (1, 3, h, w)."""
        heat = np.tensordot(weight @ self._coef, self.backbone.forward(batch)[0], 1)
        return Evidence(heat, CAM, float(self._intercept @ weight))


def feature_maps(fitted: Fitted, device: str) -> FeatureMaps | None:
    """Return a model whose maps need no PyTorch, unless it or the device needs another way."""
    steps = [step for _, step in fitted.steps[1:] if step not in (None, "passthrough")]
    if fitted.tuned is not None or len(steps) != 1 or type(steps[0]).__name__ not in _LINEAR:
        return None
    spec = fitted.embedder._spec()
    recipe = lite_recipe(spec)
    wanted = fitted.embedder.runtime in ("auto", "onnx") and needs_no_torch(device)
    if recipe is None or not wanted or not onnx_is_installed():
        return None
    with contextlib.suppress(Exception):  # PyTorch explains the images, or raises the error
        backbone = GraphBackbone(spec, recipe, [], lite_graph(spec.name, pooled=False))
        if has_lite_golden(spec.name, backbone.golden.mean(axis=(2, 3))):
            return FeatureMaps(backbone, fitted)
    return None
