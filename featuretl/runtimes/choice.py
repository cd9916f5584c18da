"""The choice of a runtime: eager PyTorch, or a faster one that gives the same embeddings.

Another runtime is used only if its embeddings agree with eager PyTorch; recipes do not name it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from featuretl._core.text import reason_of
from featuretl.exceptions import BackboneError
from featuretl.images.decode import golden_pixels
from featuretl.store.keys import canonical_json
from featuretl.store.store import EmbeddingStore, default_cache

T = TypeVar("T")


@dataclass(frozen=True)
class Alternative:
    """Requirements of an alternative to eager PyTorch."""

    # Least number of images, by device, for which "auto" considers this runtime: exporting a model
    # takes seconds, compiling one takes a minute, embedding an image takes milliseconds.
    least_images: dict[str, int]
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    devices: tuple[str, ...] = ("cpu",)


ALTERNATIVES = {
    "onnx": Alternative({"cpu": 1_000}, ("onnxruntime", "onnx", "onnxscript")),
    "openvino": Alternative(
        {"cpu": 1_000}, ("openvino", "onnx", "onnxscript"), ("float32", "bfloat16")
    ),
    # "auto" does not use it on the CPU, where ONNX Runtime is faster in every measurement.
    "compile": Alternative({"cuda": 20_000}, (), ("float32", "bfloat16"), ("cpu", "cuda")),
}
RUNTIMES = ("auto", "torch", *ALTERNATIVES)

LEAST_COSINE = 0.9999

_CACHED_FACTOR = 10  # a cached model is worth loading for 10 times fewer images
_IMAGES_FOR_GRAPH = 25  # ONNX Runtime needs about 0.3 s to start on a graph that exists
_MEASURED = 16
_MEASURED_SECONDS = 3.0


class RuntimeChoice:
    """The choice for one backbone on this machine and `n_threads` threads; cached in a store."""

    def __init__(
        self, backbone: Any, store: EmbeddingStore | None, pool: ThreadPoolExecutor, n_threads: int
    ) -> None:
        self._backbone, self._store = backbone, store
        self._pool, self._n_threads = pool, n_threads
        self._loaded: dict[str, Any] = {"torch": backbone.forward}
        self._model: bytes | None = None

    def choose(self, wanted: str, n_images: int) -> tuple[str, Any]:
        """Return the name and runtime for `n_images` images; BackboneError if `wanted` fails."""
        if wanted != "auto":
            return wanted, self.load(wanted)
        fastest = self._fastest(n_images)
        with contextlib.suppress(BackboneError):
            return fastest, self.load(fastest)
        return "torch", self.load("torch")

    def measure(self, names: list[str]) -> dict[str, float | None]:
        """Measure and cache the images per second of runtimes; None for an unavailable one."""
        speeds: dict[str, float | None] = {}
        batch = probe(self._backbone, _MEASURED)
        for name in names:
            speeds[name] = None
            with contextlib.suppress(BackboneError):
                runtime = self.load(name)
                speeds[name] = images_per_second(runtime, batch, self._pool, self._n_threads)
        if self._store is not None:
            self._store.memo.put(self._key(), {**self._remembered(), **speeds})
        return speeds

    def possible(self) -> list[str]:
        """Return the installed runtimes that support the backbone's device and precision."""
        return ["torch", *(name for name in ALTERNATIVES if not self._obstacle(name))]

    def load(self, name: str) -> Any:
        """Return a runtime that agrees with eager PyTorch. Raises BackboneError."""
        if name not in self._loaded:
            if obstacle := self._obstacle(name):
                raise BackboneError(obstacle)
            self._loaded[name] = self._compiled() if name == "compile" else self._exported(name)
        return self._loaded[name]

    def _fastest(self, n_images: int) -> str:
        known = self._remembered()
        device = self._backbone.device.type
        least = ALTERNATIVES["onnx"].least_images.get(device, math.inf)
        if _IMAGES_FOR_GRAPH <= n_images < least and not known and self._has_graph():
            return "onnx"

        def is_worth_it(name: str) -> bool:
            least = ALTERNATIVES[name].least_images.get(device, math.inf)
            return n_images >= (least / _CACHED_FACTOR if known.get(name) else least)

        names = [name for name in self.possible() if name == "torch" or is_worth_it(name)]
        if len(names) > 1 and not known.keys() >= set(names):
            known = self.measure(names)
        return max(names, key=lambda name: known.get(name) or 0.0)

    def _obstacle(self, name: str) -> str:
        """Return why a runtime cannot be used, or an empty string."""
        alternative = ALTERNATIVES[name]
        if self._backbone.device.type not in alternative.devices:
            where = " or ".join(alternative.devices)
            return f"runtime={name!r} runs on {where}; use runtime='torch'."
        if self._backbone.spec.precision not in alternative.precisions:
            precisions = " or ".join(alternative.precisions)
            return f"runtime={name!r} computes in {precisions}; use runtime='torch'."
        if not all(map(_has, alternative.packages)):
            return f"runtime={name!r} needs: pip install {' '.join(alternative.packages)}"
        return ""

    def _has_graph(self) -> bool:
        """Return whether ONNX Runtime needs no export, and nothing is to be measured."""
        file = model_file(self._recipe, self._store)
        is_kept = file is not None and file.is_file()
        return not self._obstacle("onnx") and (is_kept or self._is_lite)

    @cached_property
    def _is_lite(self) -> bool:
        from featuretl.runtimes.lite import lite_recipe

        return lite_recipe(replace(self._backbone.spec, precision="float32")) == self._recipe

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        """`Backbone.recipe` in float32, the precision of graphs."""
        return {**self._backbone.recipe, "compute": {"precision": "float32"}}

    def _compiled(self) -> Any:
        from featuretl.runtimes.alternatives import CompiledRuntime

        backbone = self._backbone
        return self._check("compile", lambda: CompiledRuntime(backbone.embedding, backbone.device))

    def _exported(self, name: str) -> Any:
        """Return a runtime on the store's cached model, or on a newly exported one."""
        from featuretl.runtimes.onnx import OnnxRuntime, OpenVinoRuntime, cached

        def start(model: bytes) -> Any:
            if name == "openvino":
                options = self._n_threads, self._backbone.spec.precision
                return self._check(name, lambda: OpenVinoRuntime(model, *options))
            return self._check(name, lambda: OnnxRuntime(model))

        def make() -> bytes:
            if self._model is None:
                self._model = self._try(name, self._graph)
            return self._model

        return cached(model_file(self._recipe, self._store), make, start)

    def _graph(self) -> bytes:
        """Return the network as an ONNX model."""
        from featuretl.runtimes.alternatives import export
        from featuretl.runtimes.lite import lite_graph

        if self._is_lite:
            return lite_graph(self._backbone.spec.name)
        return export(self._backbone.embedding_in("float32"), tuple(self._probe.shape[1:]))

    def _try(self, name: str, work: Callable[[], T]) -> T:
        """Run `work` in a thread of the pool. Raises BackboneError if it fails."""
        try:
            return self._pool.submit(work).result()
        except Exception as error:  # exporters, compilers and runtimes raise any exception
            raise BackboneError(
                f"This backbone cannot run with runtime={name!r} ({reason_of(error)}); use "
                "runtime='torch'."
            ) from error

    def _check(self, name: str, start: Callable[[], Any]) -> Any:
        """Start a runtime. Raises BackboneError if that fails or its embeddings disagree."""
        runtime, found = self._try(name, lambda: ((r := start()), r(self._probe)))
        if not agree(self._expected, found):
            raise BackboneError(
                f"runtime={name!r} does not give the embeddings that eager PyTorch gives; use "
                "runtime='torch'."
            )
        return runtime

    @cached_property
    def _probe(self) -> Any:
        return probe(self._backbone)

    @cached_property
    def _expected(self) -> np.ndarray:
        """Embeddings of the probe from eager PyTorch."""
        return self._backbone.forward(self._probe)

    def _remembered(self) -> dict[str, float | None]:
        known = None if self._store is None else self._store.memo.get(self._key())
        return known if isinstance(known, dict) else {}

    def _key(self) -> str:
        """Return the memo key of the speeds on this machine, which do not depend on weights."""
        backbone = self._backbone
        recipe = {**backbone.recipe, "backbone": backbone.spec.name}
        machine = [platform.node(), platform.machine(), os.cpu_count(), self._n_threads]
        if backbone.device.type != "cpu":
            machine.append(str(backbone.device))
        return _digest({"recipe": recipe, "machine": machine})


def agree(expected: np.ndarray, found: np.ndarray) -> bool:
    """Return whether all rows of two arrays (n, d) agree: cosine >= `LEAST_COSINE`."""
    return expected.shape == found.shape and least_cosine(expected, found) >= LEAST_COSINE


def least_cosine(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the least cosine between rows of two arrays (n, d); -1 if `found` is not finite."""
    if not np.isfinite(found).all():
        return -1.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


def images_per_second(
    runtime: Callable[[Any], np.ndarray], batch: Any, pool: ThreadPoolExecutor, n_threads: int
) -> float:
    """Return the throughput of all threads of `pool` on copies of `batch`, a median over 3 s."""

    def round_() -> float:
        began = time.perf_counter()
        wait(futures := [pool.submit(runtime, batch) for _ in range(n_threads)])
        for future in futures:
            future.result()
        return time.perf_counter() - began

    round_()
    seconds = [round_()]
    while len(seconds) < 3 and sum(seconds) < _MEASURED_SECONDS:
        seconds.append(round_())
    return n_threads * len(batch) / statistics.median(seconds)


def probe(backbone: Any, n: int = 4) -> Any:
    """Return a batch of n network inputs, repeating those of `probe_images`."""
    views = probe_images(backbone.preprocessing.input_size[0])
    return backbone.batch([backbone.prepare(views[i % len(views)]) for i in range(n)])


def probe_images(n_channels: int = 3) -> list[np.ndarray]:
    """Return the golden image and its mirrored, rotated and inverted copies, uint8 (h, w, c)."""
    pixels = golden_pixels(n_channels)
    return [pixels, pixels[:, ::-1].copy(), np.rot90(pixels).copy(), 255 - pixels]


def agreement(backbone: Any, runtime: Any) -> float | None:
    """Return the least cosine to float32 embeddings on four images; None for float32."""
    from featuretl.backbones.eager import TorchRuntime

    if backbone.spec.precision == "float32":
        return None
    batch = probe(backbone)
    return least_cosine(TorchRuntime(backbone.embedding_in("float32"))(batch), runtime(batch))


def model_file(recipe: dict[str, Any], store: EmbeddingStore | None) -> Path | None:
    """Return the path of the exported model of a backbone with `Backbone.recipe`.

    It is in `store`, unless the default store has it already, whose models serve every store.
    """
    if store is None:
        return None
    name = f"{_digest({'recipe': recipe})}.onnx"
    own, known = (folder / "models" / name for folder in (store.path, default_cache()))
    return known if known.is_file() and not own.is_file() else own


def _digest(facts: dict[str, Any]) -> str:
    """Return the SHA-256 of facts and the versions of libraries that export and run models."""
    installed = [package for package in ("onnxruntime", "onnx", "openvino") if _has(package)]
    facts = {**facts, "versions": versions(("torch", "timm", *installed))}
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def versions(names: tuple[str, ...] = ("torch", "timm", "pillow")) -> dict[str, str]:
    """Return the versions of libraries; by default of those that embeddings depend on."""
    return {name: version(name) for name in names}


def onnx_is_installed() -> bool:
    """Return whether the packages that export and run ONNX models are installed."""
    return all(map(_has, ALTERNATIVES["onnx"].packages))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
