"""ImageEncoder: from images to embeddings with a backbone on one or more devices."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from featuretl._core.text import reason_of
from featuretl.backbones.spec import BackboneSpec
from featuretl.backbones.views import split_views
from featuretl.exceptions import BackboneError, FeatureTLWarning
from featuretl.images.channels import decode_channels
from featuretl.images.decode import DECODE_POLICY, golden_pixels
from featuretl.images.inputs import Decoder, file_of, name_of, read
from featuretl.runtimes.choice import (
    LEAST_COSINE,
    RuntimeChoice,
    agree,
    agreement,
    least_cosine,
    model_file,
    versions,
)
from featuretl.runtimes.lite import lite_recipe
from featuretl.store.keys import Recipe
from featuretl.store.store import EmbeddingStore

RECIPE_VERSION = 1


class ImageEncoder:
    """The engine's interface to a BackboneSpec, which is loaded only when needed, or a Backbone.

    Threads are assigned to devices in turn. `n_images` is the total if this is one of several runs.
    """

    file_of = staticmethod(file_of)
    name_of = staticmethod(name_of)

    def __init__(
        self, backbone: Any, store: EmbeddingStore | None, device: Any, runtime: str, n_images: int
    ) -> None:
        self._store = store
        self._n_images = n_images
        self.choice: tuple[str, float | None] | None = None
        self._wanted_runtime = runtime
        self._wanted = backbone
        self._device = device
        self._graph: Any = None  # a backbone without PyTorch
        self._agreement: float | None = None  # of an accelerator with the CPU
        self._turn = itertools.count()
        self._thread_local = threading.local()

    @property
    def backbone(self) -> Any:
        """The loaded backbone, on the first device."""
        return self._workers[0].backbone

    @property
    def largest_batch(self) -> int:
        """Largest useful number of images in a forward pass."""
        return self._workers[0].largest_batch

    @property
    def pipelined(self) -> list[_Worker]:
        """The workers that a `Pipeline` feeds, one for each device; none on the CPU."""
        return [] if self._workers[0].backbone.device.type == "cpu" else self._workers

    @property
    def preparation(self) -> Any:
        """What prepares files in another process; None if it needs this one; see `Preparers`."""
        if channels_of(self._wanted) not in (1, 3):
            return None
        return self.backbone.preparation, self.backbone.preprocessing.least_side

    def use_graph(self, recipe: Recipe | None) -> None:
        """Embed with a graph instead of PyTorch, which is not imported yet, if there is one.

        `recipe` is the recipe that is known without loading the backbone.
        """
        from featuretl.runtimes.graph import find_graph, needs_no_torch

        wanted = isinstance(self._wanted, BackboneSpec) and self._wanted_runtime in ("auto", "onnx")
        if wanted and needs_no_torch(self._device):
            self._graph = find_graph(self._wanted, self._store, recipe)
        if self._graph is not None:
            self.choice = "onnx", None

    @cached_property
    def _workers(self) -> list[_Worker]:
        if self._graph is not None:
            return [_Worker(self._graph, self._graph.forward)]
        backbones = [self._wanted]
        if isinstance(self._wanted, BackboneSpec):
            from featuretl.backbones.backbone import load_spec
            from featuretl.backbones.devices import devices_of

            devices = devices_of("extract", self._device)
            backbones = [load_spec(self._wanted, device) for device in devices]
        workers = [_Worker(backbone, self._forward_of(backbone)) for backbone in backbones]
        return self._checked(workers) if self._device == "auto" else workers

    def _checked(self, workers: list[_Worker]) -> list[_Worker]:
        """Return `workers`, or one on the CPU if they are on an accelerator that disagrees."""
        from featuretl.backbones.backbone import load_spec
        from featuretl.backbones.devices import accelerator

        device = workers[0].backbone.device
        if not isinstance(self._wanted, BackboneSpec) or device != accelerator():
            return workers
        on_cpu = load_spec(self._wanted, "cpu")
        cpu = _Worker(on_cpu, self._forward_of(on_cpu))
        try:
            self._agreement = least_cosine(cpu.golden(), workers[0].golden())
            problem = f"least cosine {self._agreement:.5f} instead of {LEAST_COSINE} or more"
        except (RuntimeError, NotImplementedError, TypeError) as error:  # an operation it lacks
            self._agreement, problem = -1.0, f"{type(error).__name__}: {reason_of(error)}"
        if self._agreement >= LEAST_COSINE:
            return workers
        self._agreement = None
        message = (
            f"The device {str(device)!r} does not give the embeddings of the CPU ({problem}); the "
            "CPU is used."
        )
        warnings.warn(message, FeatureTLWarning, stacklevel=2)
        return [cpu]

    def _forward_of(self, backbone: Any) -> Any:
        if not _is_int8(backbone):
            return backbone.forward
        from featuretl.runtimes.int8 import load_int8

        return load_int8(backbone, model_file(backbone.recipe, self._store))

    def read(self, image: Any, stage: Callable[[str], Any] = nullcontext) -> Any:
        """Read one image and compute its key. Raises ImageError."""
        return read(image, stage, channels_of(self._wanted))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the embeddings (JSON); that of a packaged network needs no backbone."""
        unloaded = "_workers" not in vars(self) and isinstance(self._wanted, BackboneSpec)
        known = lite_recipe(self._wanted) if unloaded else None
        return {
            "version": RECIPE_VERSION,
            "decode": DECODE_POLICY,
            **(known or self.backbone.recipe),
        }

    @property
    def memo_facts(self) -> dict[str, Any] | None:
        """Facts besides the backbone's files that determine the recipe; None for a loaded backbone."""
        if not isinstance(self._wanted, BackboneSpec):
            return None
        return {
            "spec": self._wanted.facts,
            "versions": versions(),
            "recipe": [RECIPE_VERSION, DECODE_POLICY],
        }

    @property
    def files(self) -> Sequence[Any] | None:
        """The backbone's files, which with `memo_facts` determine the recipe; None if unknown."""
        return self.backbone.files or (() if self._wanted.weights == "random" else None)

    def prepare(self, content: Any, decoder: Decoder, stage: Callable[[str], Any]) -> Any:
        """Return an image decoded, resized and cropped. Raises ImageError."""
        n_channels = channels_of(self._wanted)
        if n_channels not in (1, 3):
            decoder = partial(decode_channels, n_channels=n_channels)
        with stage("decode"):
            pixels = content.pixels(decoder, self.backbone.preprocessing.least_side)
        with stage("resize"):
            return self.backbone.prepare(pixels)

    def embed(self, inputs: list[Any], stage: Callable[[str], Any]) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of prepared images, on the thread's device."""
        if not hasattr(self._thread_local, "worker"):
            workers = self._workers
            self._thread_local.worker = workers[next(self._turn) % len(workers)]
        return self._thread_local.worker.embed(inputs, stage)

    def choose_runtime(
        self, pool: ThreadPoolExecutor, n_threads: int, n_images: int
    ) -> tuple[str, float | None]:
        """Choose, once, the runtime for `n_images` images in the `n_threads` threads of `pool`.

        Returns its name and, for a precision below float32 or an accelerator other than CUDA, its
        agreement with float32 on the CPU.
        """
        if self.choice is None and not hasattr(self.backbone, "embedding"):  # a trunk
            self.choice = "torch", None
        if self.choice is not None:
            return self.choice
        if _is_int8(self.backbone):
            if self._wanted_runtime not in ("auto", "onnx"):
                raise BackboneError(
                    f"precision='int8' runs with runtime='onnx' only; got {self._wanted_runtime!r}."
                )
            name = "onnx"
        else:
            name = self._load_runtimes(pool, n_threads, max(n_images, self._n_images))
        below = agreement(self.backbone, self._workers[0].runtime)
        self.choice = name, self._agreement if below is None else below
        return self.choice

    def _load_runtimes(self, pool: ThreadPoolExecutor, n_threads: int, n_images: int) -> str:
        """Choose a runtime on the first device and load it on every device; return its name."""
        name = self._wanted_runtime
        for worker in self._workers:
            choice = RuntimeChoice(worker.backbone, self._store, pool, n_threads)
            if worker is self._workers[0]:
                name, worker.runtime = choice.choose(name, n_images)
            else:
                worker.runtime = choice.load(name)
        return name

    @cached_property
    def golden(self) -> np.ndarray:
        """Embedding of the golden image, (d,). Raises BackboneError if devices disagree."""
        first = self._workers[0].golden()
        for worker in self._workers[1:]:
            if not agree(first, worker.golden()):
                raise BackboneError(
                    f"The device {str(worker.backbone.device)!r} does not give the embeddings that "
                    f"{str(self.backbone.device)!r} gives; leave one of them out of 'device'."
                )
        return first[0]


@dataclass
class _Worker:
    """A backbone on a device, and its runtime."""

    backbone: Any
    runtime: Any

    def embed(self, inputs: list[Any], stage: Callable[[str], Any]) -> np.ndarray:
        rows = []
        views = split_views(inputs)
        size = max(len(inputs), self.largest_batch)
        with self._own_stream():
            for start in range(0, len(views), size):
                with stage("normalise"):
                    batch = self.backbone.batch(views[start : start + size])
                with stage("forward"):
                    rows.append(self.runtime(batch))
        return np.concatenate(rows).reshape(len(inputs), -1)

    def start(self, staged: Any, stage: Callable[[str], Any]) -> Callable[[], np.ndarray]:
        """Start to embed images in staging memory, which must not change before they are embedded.

        Returns a function that waits for the embeddings, float32 (n, d), and returns them.
        """
        from featuretl.backbones.devices import copy_ahead

        rows = []
        views = staged.flatten(0, -4)
        size = max(len(staged), self.largest_batch)
        for start in range(0, len(views), size):
            with stage("normalise"):
                on_device = copy_ahead(views[start : start + size], self.backbone.device)
                batch = self.backbone.preprocessing.normalise(on_device)
            with stage("forward"):
                rows.append(self.runtime.start(batch))
        return lambda: np.concatenate([wait() for wait in rows]).reshape(len(staged), -1)

    def _own_stream(self) -> AbstractContextManager[None]:
        if self.backbone.device.type == "cpu":
            return nullcontext()
        from featuretl.backbones.devices import own_stream

        return own_stream(self.backbone.device)

    @property
    def largest_batch(self) -> int:
        return 32 if self.backbone.device.type == "cpu" else 256  # a CPU's cache is small

    def golden(self) -> np.ndarray:
        pixels = golden_pixels(channels_of(self.backbone))
        return self.embed([self.backbone.prepare(pixels)], nullcontext)


def channels_of(backbone: Any) -> int:
    """Return the number of channels of a backbone's images; 3 for a trunk, which takes any."""
    return getattr(getattr(backbone, "spec", backbone), "in_chans", 3)


def _is_int8(backbone: Any) -> bool:
    return hasattr(backbone, "spec") and backbone.spec.precision == "int8"
