"""The choice to cache the trunk's activations where that pays and fits, and the caching."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featuretl.backbones.backbone import Backbone
from featuretl.backbones.views import STRENGTHS, Strength
from featuretl.exceptions import ImageError
from featuretl.extraction.engine import embedding_bar
from featuretl.extraction.extraction import describe_failures, extract
from featuretl.finetune.activations import CachedActivations
from featuretl.finetune.network import Split
from featuretl.finetune.trunk import Trunk, activation_shape
from featuretl.store.store import EmbeddingStore

MOST_DISK = 20 * 2**30
MOST_MEMORY = 2**30


@dataclass(frozen=True)
class Plan:
    """Whether the trunk's activations are cached, and why.

    Attributes
    ----------
    cached : bool
    views : int
        Views of each image; 0 if not cached.
    bytes : int
        What they take.
    why : str
        One clause.
    """

    cached: bool
    views: int
    bytes: int
    why: str


def plan(
    p: Any, n_images: int, backbone: Backbone, divided: Split, store: EmbeddingStore | None
) -> Plan:
    """Decide whether to cache activations; `p` has the parameters of the estimator."""
    augment = resolve_augment(p.augment)
    if divided.trunk is None:
        return uncached(divided.why_not_cut or "every block is trained")
    if not isinstance(augment, Strength):
        return uncached("augment is a function, which is to see each image each time")
    row_bytes = 2 * int(np.prod(activation_shape(backbone, divided.trunk)))
    size = n_images * augment.views * row_bytes
    if p.cache_trunk != "auto":
        return (
            Plan(True, augment.views, size, "as asked") if p.cache_trunk else uncached("as asked")
        )
    if p.epochs <= augment.views:
        return uncached(f"{p.epochs} epochs do not repay {augment.views} views")
    space = MOST_MEMORY if store is None else _disk_space(store.path)
    place = "memory" if store is None else "disk"
    if size > space:
        return uncached(f"{size:,} bytes of activations exceed {space:,} of {place}")
    return Plan(True, augment.views, size, f"{size:,} bytes of activations fit on {place}")


def uncached(why: str) -> Plan:
    """Return the plan of caching nothing."""
    return Plan(False, 0, 0, why)


def cache_activations(
    images: Sequence[Any],
    backbone: Backbone,
    divided: Split,
    strength: Strength,
    store: EmbeddingStore | None,
    batch_size: int,
    n_jobs: int,
    verbose: bool,
) -> CachedActivations:
    """Run every view of every image through its trunk, once, and return the activations.

    Raises ImageError for images that cannot be read.
    """
    assert divided.trunk is not None  # only called where there is one  # nosec B101
    views = []
    for view in range(strength.views):
        trunk = Trunk(backbone, divided.trunk, len(divided.blocks), view, strength)
        with embedding_bar(len(images), shown=verbose) as progress:
            found = extract(
                images,
                trunk,
                store=store,
                batch_size=batch_size,
                n_jobs=n_jobs,
                on_error="nan",
                progress=progress,
            )
        if found.failures:
            raise ImageError(
                describe_failures(found.failures, len(images), "fix them or leave them out.")
            )
        views.append(found)
    return CachedActivations(views, trunk.shape, strength.noise, backbone.device)


def resolve_augment(augment: Any) -> Strength | Callable[..., Any]:
    """Return what `augment` means: "auto" is "light"."""
    if callable(augment):
        return augment
    return STRENGTHS["light" if augment == "auto" else augment]


def _disk_space(path: Path) -> int:
    """Return the bytes that activations may take: half of what is free, 20 GiB at most."""
    while not os.path.lexists(path):  # False, too, where a name is too long
        path = path.parent
    return min(MOST_DISK, shutil.disk_usage(path).free // 2)
