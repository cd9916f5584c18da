"""What a backbone costs on this machine, found out once and remembered in the store."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from typing import Any

from featuretl.backbones.catalog import describe_backbones
from featuretl.ranking.speed import time_extraction
from featuretl.runtimes.choice import versions
from featuretl.store.keys import canonical_json
from featuretl.store.store import EmbeddingStore


@dataclasses.dataclass(frozen=True)
class Costs:
    """Speed and size.

    Attributes
    ----------
    images_per_second : float
        See `time_extraction`.
    n_parameters : int
        Classifier excluded.
    """

    images_per_second: float
    n_parameters: int


def costs_of(
    backbone: Any,
    images: Sequence[Any],
    store: EmbeddingStore,
    *,
    device: Any,
    n_jobs: int | None,
) -> Costs:
    """Return the costs of a BackboneSpec or Backbone; measured on some of `images` the first time."""
    spec = getattr(backbone, "spec", backbone)
    first = str(device[0] if isinstance(device, (list, tuple)) else device)
    machine = [platform.node(), platform.machine(), os.cpu_count(), first, n_jobs]
    facts = {"spec": dataclasses.asdict(spec), "machine": machine, "versions": versions()}
    key = "costs " + canonical_json(facts)
    known = store.memo.get(key)
    if known is None:
        (info,) = describe_backbones([spec.name])
        speed = time_extraction(images, backbone, device=first, n_jobs=n_jobs)
        known = dataclasses.asdict(Costs(speed, info.n_parameters))
        store.memo.put(key, known)
    return Costs(**known)
