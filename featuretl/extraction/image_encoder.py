"""ImageEncoder: from images to embeddings, by a backbone on one or more devices."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from featuretl.backbones.spec import BackboneSpec
from featuretl.backbones.views import split_views
from featuretl.exceptions import BackboneError
from featuretl.images.decode import DECODE_POLICY, golden_pixels
from featuretl.images.inputs import Decoder, is_file, name_of, read
from featuretl.runtimes.choice import RuntimeChoice, agreement, model_file, versions
from featuretl.store.keys import Recipe
from featuretl.store.memo import file_state
from featuretl.store.store import EmbeddingStore

RECIPE_VERSION = 1


class ImageEncoder:
    """What the engine needs of a backbone; it is loaded only when needed.

    Parameters
    ----------
    backbone : BackboneSpec or Backbone
    store : EmbeddingStore or None
        Caches exported graphs and the choice of a runtime.
    device : str or list of str
        Where a backbone that is not loaded yet will run; with several devices, each thread uses
        one of them, in turn.
    runtime : str
        One of `featuretl.runtimes.choice.RUNTIMES`.
    n_images : int
        Number of images of all runs together, where there are several runs.
    """

    read = staticmethod(read)
    is_file = staticmethod(is_file)
    name_of = staticmethod(name_of)

    def __init__(
        self,
        backbone: Any,
        store: EmbeddingStore | None,
        device: Any,
        runtime: str,
        n_images: int,
    ) -> None:
        self._store = store
        self._n_images = n_images
        self.choice: tuple[str, float | None] | None = None
        self._wanted_runtime = runtime
        self._wanted = backbone
        self._device = device
        self._turn = itertools.count()
        self._of_thread = threading.local()

    @property
    def backbone(self) -> Any:
        """The loaded backbone, on the first device."""
        return self._workers[0].backbone

    @property
    def largest_batch(self) -> int:
        """How many images at most are worth one forward pass; a processor's cache is soon full."""
        return self._workers[0].largest_batch

    @cached_property
    def _workers(self) -> list[_Worker]:
        backbones = [self._wanted]
        if isinstance(self._wanted, BackboneSpec):
            from featuretl.backbones.backbone import load_spec
            from featuretl.backbones.devices import devices_of

            devices = devices_of("extract", self._device)
            backbones = [load_spec(self._wanted, device) for device in devices]
        return [_Worker(backbone, self._forward_of(backbone)) for backbone in backbones]

    def _forward_of(self, backbone: Any) -> Any:
        if not _is_int8(backbone):
            return backbone.forward
        from featuretl.runtimes.int8 import load_int8

        return load_int8(backbone, model_file(backbone, self._store))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the embeddings (JSON)."""
        return {"version": RECIPE_VERSION, "decode": DECODE_POLICY, **self.backbone.recipe}

    @property
    def memo_facts(self) -> dict[str, Any] | None:
        """What the recipe depends on, besides the weights file; None of a loaded backbone."""
        if not isinstance(self._wanted, BackboneSpec):
            return None
        return {
            "spec": dataclasses.asdict(self._wanted),
            "versions": versions(),
            "recipe": [RECIPE_VERSION, DECODE_POLICY],
        }

    def memo_entry(self) -> dict[str, Any] | None:
        """Return the recipe and the state of the weights file; None where that file is unknown."""
        file = self.backbone.weights_file
        if file is None and self._wanted.weights != "random":
            return None
        return {"recipe": self.recipe, "file": file and file_state(file)}

    def prepare(self, content: Any, decoder: Decoder, stage: Callable[[str], Any]) -> Any:
        """Return what the network sees of an image. Raises ImageError."""
        with stage("decode"):
            pixels = content.pixels(decoder)
        with stage("resize"):
            return self.backbone.prepare(pixels)

    def embed(self, inputs: list[Any], stage: Callable[[str], Any]) -> np.ndarray:
        """Return the embeddings (n, d) of prepared images, by the calling thread's device.

        `stage` is entered with "normalise" and "forward" around these.
        """
        if not hasattr(self._of_thread, "worker"):
            workers = self._workers
            self._of_thread.worker = workers[next(self._turn) % len(workers)]
        return self._of_thread.worker.embed(inputs, stage)

    def choose_runtime(
        self, pool: ThreadPoolExecutor, n_threads: int, n_images: int
    ) -> tuple[str, float | None]:
        """Settle, once, what embeds `n_images` images in the `n_threads` threads of `pool`.

        Returns the runtime's name, and the least cosine of its embeddings to float32 ones where it
        computes in lower precision.
        """
        if self.choice is not None:
            return self.choice
        if not hasattr(self.backbone, "embedding"):  # a trunk
            self.choice = "torch", None
            return self.choice
        if _is_int8(self.backbone):
            if self._wanted_runtime not in ("auto", "onnx"):
                raise BackboneError("precision='int8' runs with runtime='onnx' only.")
            name = "onnx"
        else:
            choices = [
                RuntimeChoice(worker.backbone, self._store, pool, n_threads)
                for worker in self._workers
            ]
            n_images = max(n_images, self._n_images)
            name, runtime = choices[0].make(self._wanted_runtime, n_images)
            runtimes = [runtime, *(choice.load(name) for choice in choices[1:])]
            for worker, runtime in zip(self._workers, runtimes, strict=True):
                worker.runtime = runtime
        self.choice = name, agreement(self.backbone, self._workers[0].runtime)
        return self.choice

    @cached_property
    def golden(self) -> np.ndarray:
        """The golden image's embedding (d,). Raises BackboneError if devices differ in it."""
        from featuretl.runtimes.comparison import agree

        first, *others = (worker.golden() for worker in self._workers)
        for worker, golden in zip(self._workers[1:], others, strict=True):
            if not agree(first, golden):
                raise BackboneError(
                    f"The device {str(worker.backbone.device)!r} does not give the embeddings that "
                    f"{str(self.backbone.device)!r} gives; leave one of them out of 'device'."
                )
        return first[0]


@dataclass
class _Worker:
    """A backbone on a device, and what embeds there."""

    backbone: Any
    runtime: Any

    def embed(self, inputs: list[Any], stage: Callable[[str], Any]) -> np.ndarray:
        from featuretl.backbones.devices import own_stream

        rows = []
        views = split_views(inputs)
        size = max(len(inputs), self.largest_batch)
        with own_stream(self.backbone.device):
            for start in range(0, len(views), size):
                with stage("normalise"):
                    batch = self.backbone.batch(views[start : start + size])
                with stage("forward"):
                    rows.append(self.runtime(batch))
        return np.concatenate(rows).reshape(len(inputs), -1)

    @property
    def largest_batch(self) -> int:
        """How many inputs at most are worth one forward pass; a processor's cache is soon full."""
        return 32 if self.backbone.device.type == "cpu" else 1024

    def golden(self) -> np.ndarray:
        """Return the golden image's embedding (1, d)."""
        return self.embed([self.backbone.prepare(golden_pixels())], nullcontext)


def _is_int8(backbone: Any) -> bool:
    return hasattr(backbone, "spec") and backbone.spec.precision == "int8"
