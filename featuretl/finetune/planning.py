"""Where activations come from: a cached trunk where that pays and fits, else the images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featuretl.backbones.backbone import Backbone
from featuretl.backbones.views import STRENGTHS, Strength
from featuretl.exceptions import ImageError
from featuretl.extraction.extraction import describe_failures, extract
from featuretl.extraction.progress import embedding_bar
from featuretl.extraction.source import Source
from featuretl.finetune.activations import (
    Batches,
    CachedActivations,
    Parts,
    ahead,
)
from featuretl.finetune.network import Split
from featuretl.finetune.trunk import Trunk, from_rows
from featuretl.images.inputs import name_of, read
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.space import gather
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
    n_images: int,
    row_bytes: int | None,
    augment: Strength | Callable[..., Any],
    epochs: int,
    cache_trunk: bool | str,
    store: EmbeddingStore | None,
    why_not_cut: str,
) -> Plan:
    """Decide whether to cache; `row_bytes` is the size of an activation, None without a trunk."""
    if row_bytes is None:
        return Plan(False, 0, 0, why_not_cut or "every block is trained")
    if not isinstance(augment, Strength):
        return Plan(False, 0, 0, "augment is a function, which is to see each image each time")
    size = n_images * augment.views * row_bytes
    if cache_trunk != "auto":
        views = augment.views if cache_trunk else 0
        return Plan(bool(cache_trunk), views, views * n_images * row_bytes, "as asked")
    if epochs <= augment.views:
        return Plan(False, 0, 0, f"{epochs} epochs do not repay {augment.views} views")
    room = MOST_MEMORY if store is None else _disk_room(store.path)
    place = "memory" if store is None else "disk"
    if size > room:
        return Plan(False, 0, 0, f"{size:,} bytes of activations exceed {room:,} of {place}")
    return Plan(True, augment.views, size, f"{size:,} bytes of activations fit on {place}")


def cached(
    images: Sequence[Any],
    trunks: list[Trunk],
    noise: float,
    store: EmbeddingStore | None,
    batch_size: int,
    n_jobs: int,
    shown: bool,
) -> CachedActivations:
    """Run every view of every image through its trunk, once, and return the activations.

    Raises
    ------
    ImageError
        Naming the images that cannot be read.
    """
    views = []
    for trunk in trunks:
        with embedding_bar(len(images), shown=shown) as progress:
            views.append(
                extract(
                    images,
                    trunk,
                    store=store,
                    batch_size=batch_size,
                    n_jobs=n_jobs,
                    on_error="nan",
                    progress=progress,
                )
            )
        if views[-1].failures:
            raise ImageError(
                describe_failures(views[-1].failures, len(images), "mend them or leave them out.")
            )
    return CachedActivations(views, trunks[0].shape, noise, trunks[0].backbone.device)


class FoundActivations:
    """Activations for prediction: found in the store, or computed and not kept.

    Parameters
    ----------
    images : sequence of n images
    trunk : Trunk
        Of the images as they are.
    store : EmbeddingStore or None
    n_jobs : int
    """

    def __init__(
        self, images: Sequence[Any], trunk: Trunk, store: EmbeddingStore | None, n_jobs: int
    ) -> None:
        self._images, self._trunk, self._n_jobs = images, trunk, n_jobs
        known = Source(trunk, store).remembered() if store else None
        self._space = known[0] if known else None

    def batches(self, parts: Parts, seed: Sequence[int] | None = None) -> Batches:
        """Yield the activations of each part (indices of images); there is no augmentation."""
        with ThreadPoolExecutor(self._n_jobs, "featuretl") as pool:
            prepared = ahead(pool, self._prepare, parts)
            for part in parts:
                rows = self._rows([next(prepared) for _ in part])
                device = self._trunk.backbone.device
                yield from_rows(torch.from_numpy(rows).to(device), self._trunk.shape)

    def _prepare(self, index: int) -> int | torch.Tensor:
        """Return where the activation lies, or what to run."""
        try:
            content = read(self._images[index])
            if self._space is not None:
                found = int(self._space.find(keys_array([content.key]))[0])
                if found != MISSING:
                    return found
            return self._trunk.prepare(content.pixels())
        except ImageError as error:
            name = name_of(self._images[index], index)
            raise ImageError(f"{name}: {error}; mend it or leave it out.") from error

    def _rows(self, prepared: list[int | torch.Tensor]) -> np.ndarray:
        found = [i for i, item in enumerate(prepared) if isinstance(item, int)]
        inputs = [item for item in prepared if not isinstance(item, int)]
        rows = np.empty((len(prepared), self._trunk.n_features), np.float32)
        if found and self._space is not None:
            rows[found] = gather(self._space, np.array([prepared[i] for i in found]))
        if inputs:
            rest = np.setdiff1d(np.arange(len(prepared)), found)
            rows[rest] = self._trunk.embed(inputs)
        return rows


def resolve_augment(augment: Any) -> Strength | Callable[..., Any]:
    """Return what `augment` means: "auto" is "light"."""
    if callable(augment):
        return augment
    return STRENGTHS["light" if augment == "auto" else augment]


def trunks_of(backbone: Backbone, divided: Split, n_blocks: int, strength: Strength) -> list[Trunk]:
    """Return a trunk per view."""
    assert divided.trunk is not None  # only called where there is one  # nosec B101
    return [
        Trunk(backbone, divided.trunk, n_blocks, view, strength) for view in range(strength.views)
    ]


def _disk_room(path: Path) -> int:
    """Return how many bytes activations may take: half of what is free, 20 GiB at most."""
    while not os.path.lexists(path):  # False, too, where a name is too long
        path = path.parent
    return min(MOST_DISK, shutil.disk_usage(path).free // 2)
