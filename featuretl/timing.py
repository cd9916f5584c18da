"""time_backbone: how fast a backbone is on this machine, by runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import joblib

from featuretl._runtime import RuntimeChoice
from featuretl.backbones.spec import BackboneSpec
from featuretl.store.store import EmbeddingStore


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
    from featuretl.backbones._threads import one_thread_each

    if isinstance(backbone, str):
        backbone = BackboneSpec.of("time_backbone", backbone)
    if isinstance(backbone, BackboneSpec):
        backbone = backbone.load(device)
    n_threads = joblib.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    with ThreadPoolExecutor(n_threads, "featuretl") as pool, one_thread_each(pool, n_threads):
        choice = RuntimeChoice(backbone, store, pool, n_threads)
        speeds = choice.measure(choice.possible())
    fastest = max(speeds, key=lambda name: speeds[name] or 0.0)
    return BackboneSpeed(backbone.spec.name, speeds, fastest)
