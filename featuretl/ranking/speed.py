"""How fast a backbone is on this machine: by runtime, and from files to embeddings."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np

from featuretl.backbones.catalog import describe_backbones
from featuretl.images.inputs import read
from featuretl.runtimes.choice import RuntimeChoice, versions
from featuretl.store.keys import canonical_json
from featuretl.store.store import EmbeddingStore

_TIMED_IN_A_THREAD = 16  # one PyTorch thread is slow with fewer


@dataclass(frozen=True)
class BackboneSpeed:
    """Speed of a backbone in the runtimes of this machine, measured by `time_backbone`.

    Attributes
    ----------
    name : str
    images_per_second : dict of str to (float or None)
        By runtime: from the network's input to embeddings, without reading and decoding, in all
        threads together. None: the runtime cannot run this backbone, or does not agree.
    fastest : str
        The fastest of the runtimes.
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
    """Measure every installed runtime, side by side; about a minute, most of it compiling.

    Parameters
    ----------
    backbone : str, BackboneSpec or Backbone, default="tf_efficientnet_lite0"
    store : EmbeddingStore, optional
        Where the outcome is remembered: `extract` with the same store then uses the fastest.
    device : str, default="auto"
        A torch device.
    n_jobs : int, optional
        Threads; -1 or None is one per usable core.

    Returns
    -------
    speed : BackboneSpeed

    Raises
    ------
    BackboneError, ParameterError
        If the backbone cannot be loaded there.
    """
    from featuretl.backbones.backbone import as_backbone

    backbone = as_backbone("time_backbone", backbone, device)
    with _threads(n_jobs) as (pool, n_threads):
        choice = RuntimeChoice(backbone, store, pool, n_threads)
        speeds = choice.measure(choice.possible())
    fastest = max(speeds, key=lambda name: speeds[name] or 0.0)
    return BackboneSpeed(backbone.spec.name, speeds, fastest)


def time_extraction(
    images: Sequence[Any], backbone: Any, *, device: str = "auto", n_jobs: int | None = None
) -> float:
    """Return images per second from files to embeddings, in eager PyTorch on all threads together.

    It takes some seconds: the median of three rounds, after one to warm up, over 16 images for each
    thread. Loading the backbone, hashing and committing are not measured.

    Raises
    ------
    BackboneError, ImageError, ParameterError
        If the backbone or an image cannot be used.
    """
    from featuretl.backbones.backbone import as_backbone

    loaded = as_backbone("time_extraction", backbone, device)

    def embed(part: list[Any]) -> None:
        loaded.embed([loaded.prepare(read(image).pixels()) for image in part])

    with _threads(n_jobs) as (pool, n_threads):
        chosen = np.linspace(0, len(images) - 1, _TIMED_IN_A_THREAD * n_threads).astype(int)
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
    """Return `images_per_second` and `n_parameters` of a BackboneSpec or Backbone.

    They are measured on some of `images` the first time, then remembered in the store.
    """
    spec = getattr(backbone, "spec", backbone)
    first = str(device[0] if isinstance(device, (list, tuple)) else device)
    machine = [platform.node(), platform.machine(), os.cpu_count(), first, n_jobs]
    facts = {"spec": asdict(spec), "machine": machine, "versions": versions()}
    key = "costs " + canonical_json(facts)
    costs: dict[str, Any] | None = store.memo.get(key)
    if costs is None:
        (info,) = describe_backbones([spec.name])
        speed = time_extraction(images, backbone, device=first, n_jobs=n_jobs)
        costs = {"images_per_second": speed, "n_parameters": info.n_parameters}
        store.memo.put(key, costs)
    return costs


@contextmanager
def _threads(n_jobs: int | None) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yield a pool in which PyTorch uses one thread each, and the number of its threads."""
    from featuretl.runtimes.threads import one_thread_each

    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    with ThreadPoolExecutor(n_threads, "featuretl") as pool, one_thread_each(pool, n_threads):
        yield pool, n_threads
