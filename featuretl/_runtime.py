"""Which runtime embeds: eager PyTorch, or ONNX Runtime where that is faster and agrees."""

from __future__ import annotations

import hashlib
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featuretl.exceptions import BackboneError
from featuretl.images.decode import golden_pixels
from featuretl.store.keys import canonical_json
from featuretl.store.store import EmbeddingStore

WORTH_MEASURING = 1000  # images: to export a model takes seconds, to embed an image milliseconds

_MEASURED = 16


class RuntimeChoice:
    """The choice for one backbone on this machine, remembered in a store.

    Parameters
    ----------
    backbone : Backbone
    store : EmbeddingStore or None
    """

    def __init__(self, backbone: Any, store: EmbeddingStore | None) -> None:
        self._backbone, self._store = backbone, store

    def make(self, wanted: str, pool: ThreadPoolExecutor, n_images: int) -> tuple[str, Any]:
        """Return the name of what is to embed `n_images` images, and it; None is PyTorch.

        What "auto" means is found out once for a backbone and a machine, in a thread of `pool` as
        it will run, when there are so many images that it pays.

        Raises
        ------
        BackboneError
            If `wanted` is "onnx" and cannot be had, or disagrees with PyTorch.
        """
        if wanted == "onnx" and self._backbone.spec.precision != "float32":
            raise BackboneError("runtime='onnx' computes in float32; use runtime='torch'.")
        if wanted == "torch" or (wanted == "auto" and not self._is_worth_trying(n_images)):
            return "torch", None
        return pool.submit(self._onnx if wanted == "onnx" else self._faster).result()

    def agreement(self) -> float | None:
        """Return the least cosine to float32 embeddings on four images; None for float32 itself."""
        from featuretl.backbones.runtimes import TorchRuntime, least_cosine

        if self._backbone.spec.precision == "float32":
            return None
        batch = self._batch(4)
        single = TorchRuntime(self._backbone.embedding_in("float32"))
        return least_cosine(single(batch), self._backbone.forward(batch))

    def _is_worth_trying(self, n_images: int) -> bool:
        from featuretl.backbones.runtimes import has_onnx

        backbone = self._backbone
        in_single = backbone.spec.precision == "float32"
        if backbone.device.type != "cpu" or not in_single or not has_onnx():
            return False
        known = self._remembered()
        return known == "onnx" or (known is None and n_images >= WORTH_MEASURING)

    def _faster(self) -> tuple[str, Any]:
        from featuretl.backbones.runtimes import TorchRuntime, seconds_per_image

        known = self._remembered()
        try:
            name, onnx = self._onnx()
        except BackboneError:
            name, onnx, known = "torch", None, "torch"
        if known is None:
            batch = self._batch(_MEASURED)
            eager = TorchRuntime(self._backbone.embedding)
            if seconds_per_image(eager, batch) <= seconds_per_image(onnx, batch):
                name, onnx = "torch", None
        self._remember(name)
        return name, onnx

    def _onnx(self) -> tuple[str, Any]:
        from featuretl.backbones.runtimes import has_onnx, load_onnx

        if not has_onnx():
            raise BackboneError(
                "runtime='onnx' needs onnxruntime, onnx and onnxscript: pip install "
                "'featuretl[onnx]'."
            )
        return "onnx", load_onnx(self._backbone.embedding, self._batch(4), self._model_file())

    def _batch(self, n: int) -> Any:
        """Return the network's input of n images: the golden one, mirrored, turned, a negative, .."""
        pixels = golden_pixels()
        views = [pixels, pixels[:, ::-1].copy(), np.rot90(pixels).copy(), 255 - pixels]
        inputs = [self._backbone.prepare(views[i % len(views)]) for i in range(n)]
        return self._backbone.batch(inputs)

    def _remembered(self) -> str | None:
        return None if self._store is None else self._store.memo.get(self._key(machine=True))

    def _remember(self, name: str) -> None:
        if self._store is not None:
            self._store.memo.put(self._key(machine=True), name)

    def _model_file(self) -> Path | None:
        if self._store is None:
            return None
        return self._store.path / "models" / f"{self._key(machine=False)}.onnx"

    def _key(self, machine: bool) -> str:
        libraries = versions(("torch", "timm", "onnxruntime", "onnx"))
        facts: dict[str, Any] = {"recipe": self._backbone.recipe, "versions": libraries}
        if machine:
            facts["machine"] = [platform.node(), platform.machine(), os.cpu_count()]
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def versions(names: tuple[str, ...] = ("torch", "timm", "pillow")) -> dict[str, str]:
    """Return the versions of libraries; by default of those that an embedding passes through."""
    return {name: version(name) for name in names}
