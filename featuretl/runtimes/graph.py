"""Backbones without PyTorch: an exported graph in ONNX Runtime, and images resized by Pillow.

Importing PyTorch and timm takes as long as embedding a few hundred images.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from featuretl.backbones.catalog import packaged_file
from featuretl.backbones.preprocess import PillowPreprocessing
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError
from featuretl.images.decode import golden_pixels
from featuretl.runtimes.choice import least_cosine, model_file, onnx_is_installed
from featuretl.runtimes.lite import has_lite_golden, lite_graph, lite_recipe
from featuretl.runtimes.onnx import OnnxRuntime, cached
from featuretl.store.store import EmbeddingStore

_LEAST_COSINE = 0.99999  # to the golden embedding in the store, which then opens the same space
_NOT_OF_A_BACKBONE = ("version", "decode")  # entries of a recipe


class GraphBackbone:
    """A backbone on an ONNX `model`, with the members of `Backbone` that extraction needs.

    `recipe` is `Backbone.recipe`; `files` are those that the network comes from, if known.
    """

    device = SimpleNamespace(type="cpu")

    def __init__(
        self, spec: BackboneSpec, recipe: dict[str, Any], files: list[Path], model: bytes
    ) -> None:
        self.spec, self.recipe, self.files = spec, recipe, files
        self.preprocessing = PillowPreprocessing.of_recipe(recipe["preprocess"])
        self.prepare = self.preparation = self.preprocessing
        self.forward = OnnxRuntime(model)

    def batch(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Normalise prepared images, uint8 (3, h, w), to float32 (n, 3, h, w)."""
        return self.preprocessing.normalise(np.stack(inputs))

    @cached_property
    def golden(self) -> np.ndarray:
        """The golden image's embedding, float32 (1, d)."""
        return self.forward(self.batch([self.prepare(golden_pixels(self.spec.in_chans))]))


def find_graph(
    spec: BackboneSpec, store: EmbeddingStore | None, recipe: dict[str, Any] | None
) -> GraphBackbone | None:
    """Return a spec's backbone without PyTorch; None without a graph whose embeddings agree.

    The graph is that of a packaged network, or one that the store keeps of an earlier run; `recipe`
    is the recipe that the store's memo has of the spec.
    """
    if spec.network is not None or spec.precision != "float32":
        return None
    if spec.views != 1 or spec.in_chans not in (1, 3):
        return None
    part = lite_recipe(spec)
    is_lite = part is not None
    if part is None and recipe is not None:
        part = {key: value for key, value in recipe.items() if key not in _NOT_OF_A_BACKBONE}
    if part is None or not onnx_is_installed() or part["preprocess"]["implementation"] == "timm":
        return None
    packaged = packaged_file(spec.name)
    files = [packaged] if is_lite and packaged else []

    def start(model: bytes) -> GraphBackbone:
        backbone = GraphBackbone(spec, part, files, model)
        expected = None if store is None or recipe is None else store.golden(recipe)
        if expected is not None:
            agrees = least_cosine(expected[None], backbone.golden) >= _LEAST_COSINE
        else:
            agrees = is_lite and has_lite_golden(spec.name, backbone.golden)
        if not agrees:
            raise BackboneError("the graph does not give the embeddings of the network")
        return backbone

    file = model_file(part, store)
    with contextlib.suppress(Exception):  # PyTorch embeds the images, or raises the error
        if is_lite:
            return cached(file, lambda: lite_graph(spec.name), start)
        if file is not None and file.is_file():
            return start(file.read_bytes())
    return None


def needs_no_torch(device: Any) -> bool:
    """Return whether a graph may replace PyTorch, which would have to be imported, on `device`."""
    return "timm" not in sys.modules and is_on_cpu(device)


def is_on_cpu(device: Any) -> bool:
    """Return whether a parameter `device` surely means the CPU, without importing PyTorch."""
    if device != "auto":
        return bool(device == "cpu")
    build = version("torch").partition("+")[2]
    if build == "cpu":
        return True
    if sys.platform == "darwin":
        return platform.machine() != "arm64"
    if sys.platform == "linux" and not build.startswith(("rocm", "xpu")):
        return not any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg")))
    return not build
