"""The speed of a backbone on this machine: by runtime, and from files to embeddings."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np

from featuretl.backbones.backbone import as_backbone
from featuretl.backbones.listing import count_parameters
from featuretl.images.inputs import read
from featuretl.runtimes.choice import RuntimeChoice, versions
from featuretl.runtimes.threads import one_thread_each
from featuretl.store.keys import canonical_json
from featuretl.store.store import EmbeddingStore

_IMAGES_PER_THREAD = 16  # fewer images would make a PyTorch thread slower


@dataclass(frozen=True)
class BackboneSpeed:
    """Speed of a backbone in the runtimes of this machine, measured by `time_backbone`.

    `images_per_second` are forward passes of all threads by runtime, without reading and decoding;
    None if a runtime cannot run this backbone, or its embeddings do not match PyTorch. `fastest`
    is the fastest runtime.
    """

    name: str
    images_per_second: dict[str, float | None]
    fastest: str


def time_backbone(
    backbone: Any = "tf_efficientnet_lite0",
    *,
    store: EmbeddingStore | None = None,
    device: str = "auto",
    n_jobs: int | None = None,
) -> BackboneSpeed:
    """Measure all installed runtimes; takes about a minute, mostly for compilation.

    Parameters
    ----------
    backbone : str, BackboneSpec or Backbone, default="tf_efficientnet_lite0"
    store : EmbeddingStore, optional
        The store that caches the result: `extract` with this store then uses the fastest runtime.
    device, n_jobs
        As in `extract`, a single device.

    Raises
    ------
    BackboneError, ParameterError
        If the backbone cannot be loaded on the device.
    """
    backbone = as_backbone("time_backbone", backbone, device)
    with _threads(n_jobs) as (pool, n_threads):
        choice = RuntimeChoice(backbone, store, pool, n_threads)
        speeds = choice.measure(choice.possible())
    fastest = max(speeds, key=lambda name: speeds[name] or 0.0)
    return BackboneSpeed(backbone.spec.name, speeds, fastest)


def time_extraction(
    images: Sequence[Any], backbone: Any, *, device: str = "auto", n_jobs: int | None = None
) -> float:
    """Return images per second from files to embeddings in eager PyTorch (median of 3 rounds)."""
    loaded = as_backbone("time_extraction", backbone, device)
    n = loaded.preprocessing.least_side

    def embed(part: list[Any]) -> None:
        loaded.embed([loaded.prepare(read(image).pixels(least_side=n)) for image in part])

    with _threads(n_jobs) as (pool, n_threads):
        chosen = np.linspace(0, len(images) - 1, _IMAGES_PER_THREAD * n_threads).astype(int)
        parts = [[images[i] for i in chosen[first::n_threads]] for first in range(n_threads)]
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            list(pool.map(embed, parts))
            seconds.append(time.perf_counter() - began)
    return len(chosen) / statistics.median(seconds[1:])


def costs_of(
    backbone: Any, images: Sequence[Any], store: EmbeddingStore, *, device: Any, n_jobs: int | None
) -> dict[str, Any]:
    """Return `images_per_second`, measured once and cached in the store, and `n_parameters`."""
    spec = getattr(backbone, "spec", backbone)
    first = str(device[0] if isinstance(device, (list, tuple)) else device)
    machine = [platform.node(), platform.machine(), os.cpu_count(), first, n_jobs]
    facts = {"spec": spec.facts, "machine": machine, "versions": versions()}
    key = "costs " + canonical_json(facts)
    costs: dict[str, Any] | None = store.memo.get(key)
    if costs is None:
        speed = time_extraction(images, backbone, device=first, n_jobs=n_jobs)
        model = as_backbone("rank_backbones", backbone, first).model
        costs = {"images_per_second": speed, "n_parameters": count_parameters(model)}
        store.memo.put(key, costs)
    return costs


@contextmanager
def _threads(n_jobs: int | None) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield a thread pool in which PyTorch uses one thread per worker, and its size."""
    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    with ThreadPoolExecutor(n_threads, "featuretl") as pool, one_thread_each(pool, n_threads):
        yield pool, n_threads
