"""How fast a backbone is on this machine: by runtime, and from files to embeddings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np

from featuretl.backbones.spec import BackboneSpec
from featuretl.images.inputs import read
from featuretl.runtimes.choice import RuntimeChoice
from featuretl.store.store import EmbeddingStore

_TIMED_IN_A_THREAD = 16  # one PyTorch thread is slow with fewer


@dataclass(frozen=True)
class BackboneSpeed:
    """What `time_backbone` found.

    Attributes
    ----------
    name : str
    images_per_second : dict of str to (float or None)
        By runtime: from the network's input to embeddings, without reading and decoding, in all
        threads together. None: the runtime cannot run this backbone, or does not agree.
    fastest : str
        Of all that were measured.
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
    """Measure every runtime that is installed, side by side; about a minute, most of it compiling.

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
    from featuretl.runtimes.threads import one_thread_each

    backbone = _load("time_backbone", backbone, device)
    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    with ThreadPoolExecutor(n_threads, "featuretl") as pool, one_thread_each(pool, n_threads):
        choice = RuntimeChoice(backbone, store, pool, n_threads)
        speeds = choice.measure(choice.possible())
    fastest = max(speeds, key=lambda name: speeds[name] or 0.0)
    return BackboneSpeed(backbone.spec.name, speeds, fastest)


def time_extraction(
    images: Sequence[Any],
    backbone: Any = "tf_efficientnet_lite0",
    *,
    device: str = "auto",
    n_jobs: int | None = None,
) -> float:
    """Measure images per second from files to embeddings, in eager PyTorch; some seconds.

    Parameters
    ----------
    images : sequence of n images
        See `extract`; 16 for each thread are measured, spread over the sequence.
    backbone : str, BackboneSpec or Backbone, default="tf_efficientnet_lite0"
    device : str, default="auto"
        A torch device.
    n_jobs : int, optional
        Threads; -1 or None is one per usable core.

    Returns
    -------
    float
        Of all threads together: the median of three rounds, after one to warm up. Loading the
        backbone, hashing and committing are not in it.

    Raises
    ------
    BackboneError, ImageError, ParameterError
        If something cannot be used as it is.
    """
    from featuretl.runtimes.threads import one_thread_each

    loaded = _load("time_extraction", backbone, device)
    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    chosen = np.linspace(0, len(images) - 1, _TIMED_IN_A_THREAD * n_threads).astype(int)
    parts = [[images[i] for i in chosen[first::n_threads]] for first in range(n_threads)]

    def embed(part: list[Any]) -> None:
        loaded.embed([loaded.prepare(read(image).pixels()) for image in part])

    with ThreadPoolExecutor(n_threads, "featuretl") as pool, one_thread_each(pool, n_threads):

        def rate() -> float:
            began = time.perf_counter()
            list(pool.map(embed, parts))
            return len(chosen) / (time.perf_counter() - began)

        rate()
        return statistics.median(rate() for _ in range(3))


def _load(owner: str, backbone: Any, device: str) -> Any:
    """Return the loaded backbone of a name, a BackboneSpec or a Backbone."""
    if isinstance(backbone, str):
        backbone = BackboneSpec.of(owner, backbone)
    if not isinstance(backbone, BackboneSpec):
        return backbone
    from featuretl.backbones.backbone import load_spec

    return load_spec(backbone, device)
