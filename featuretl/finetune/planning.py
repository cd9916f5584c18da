"""The decision whether to cache the trunk's activations, and the caching."""

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
from featuretl.extraction.extraction import describe_failures, extract
from featuretl.extraction.statistics import embedding_bar
from featuretl.finetune.activations import CachedActivations
from featuretl.finetune.network import Split
from featuretl.finetune.trunk import Trunk, activation_shape
from featuretl.store.store import EmbeddingStore

# Limits on the activations, in bytes.
MOST_DISK, MOST_MEMORY = 20 * 2**30, 2**30


@dataclass(frozen=True)
class Plan:
    """The decision whether the trunk's activations are cached, `cached`, and the reason, `why`.

    `views` is the number of views per image and `bytes` their size; both are 0 if not cached.
    """

    cached: bool
    views: int
    bytes: int
    why: str


def plan(
    p: Any, n_images: int, backbone: Backbone, parts: Split, store: EmbeddingStore | None
) -> Plan:
    """Decide whether to cache activations; `p` is the estimator."""
    augment = resolve_augment(p.augment)
    if parts.trunk is None:
        return uncached(parts.why_not_cut or "every block is trained")
    if not isinstance(augment, Strength):
        return uncached("augment is a function, which is called for every image in every epoch")
    row_bytes = 2 * int(np.prod(activation_shape(backbone, parts.trunk)))
    size = n_images * augment.views * row_bytes
    if p.cache_trunk != "auto":
        why = f"cache_trunk={bool(p.cache_trunk)}"
        return Plan(True, augment.views, size, why) if p.cache_trunk else uncached(why)
    if p.epochs <= augment.views:
        return uncached(f"{p.epochs} epochs do not repay the caching of {augment.views} views")
    space = MOST_MEMORY if store is None else _disk_space(store.path)
    place = "in memory" if store is None else "on disk"
    if size > space:
        return uncached(f"the activations take {size:,} bytes, more than {space:,} {place}")
    return Plan(True, augment.views, size, f"they take {size:,} bytes, which fit {place}")


def uncached(why: str) -> Plan:
    """Return the plan to cache nothing."""
    return Plan(False, 0, 0, why)


def cache_activations(
    images: Sequence[Any],
    backbone: Backbone,
    parts: Split,
    strength: Strength,
    verbose: bool,
    **options: Any,
) -> CachedActivations:
    """Return the activations of all views, computed with `options` of `extract`, or ImageError."""
    assert parts.trunk is not None  # `plan` caches only with a trunk  # nosec B101
    views = []
    for view in range(strength.views):
        trunk = Trunk(backbone, parts.trunk, len(parts.blocks), view, strength)
        with embedding_bar(len(images), shown=verbose) as progress:
            found = extract(images, trunk, on_error="nan", progress=progress, **options)
        if found.failures:
            remedy = "fix them or leave them out."
            raise ImageError(describe_failures(found.failures, len(images), remedy))
        views.append(found)
    return CachedActivations(views, trunk.shape, strength.noise, backbone.device)


def resolve_augment(augment: Any) -> Strength | Callable[..., Any]:
    """Return the augmentation that the parameter `augment` selects: "auto" is "light"."""
    if callable(augment):
        return augment
    return STRENGTHS["light" if augment == "auto" else augment]


def _disk_space(path: Path) -> int:
    """Return the limit on activations in bytes: half of the free disk space, at most 20 GiB."""
    while not os.path.lexists(path):  # False also for a name that is too long
        path = path.parent
    return min(MOST_DISK, shutil.disk_usage(path).free // 2)
