"""Garbage collection: free what has not been used for long, and what killed runs have left.

Freed embeddings are computed again when they are asked for. What stays is compacted. None of this
happens while an extraction adds rows to the store; a reader keeps the rows that it has mapped,
because files are unlinked and never changed.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.store.compact import YOUNG_SECONDS, compact
from featuretl.store.listing import entries, space_folders
from featuretl.store.store import EmbeddingStore, SpaceInfo


@dataclass
class CollectionResult:
    """Result of `collect`."""

    spaces: list[SpaceInfo] = field(default_factory=list)  # freed recipes
    views: int = 0  # freed matrices and exported models
    bytes: int = 0  # freed
    compacted: int = 0  # small segments that were merged into others


def collect(
    store: EmbeddingStore,
    max_size: int | None = None,
    older_than: float | None = None,
    keep: str | None = None,
) -> CollectionResult:
    """Free disk space, and merge small segments of what stays.

    Ordered matrices (views) go before embeddings, and the least recently used go first, until both
    take at most `max_size` bytes and none was last used more than `older_than` seconds ago. The
    space with the id `keep` stays, and half-written files of killed runs go, in any case. Raises
    StoreError if an extraction is adding rows, or the store cannot be written.
    """
    result = CollectionResult()
    if not store.exists():
        return result
    with store.locked_exclusively():
        remove_leftovers(store.path)
        spaces = sorted(store.info(), key=lambda info: info.used)
        views = entries(store.path / "views", ".npy") + entries(store.path / "models", ".onnx")
        views.sort(key=lambda view: view[0].st_mtime)
        total = sum(info.bytes for info in spaces) + sum(state.st_size for state, _ in views)
        cutoff = -math.inf if older_than is None else time.time() - older_than
        most = math.inf if max_size is None else max_size
        for state, path in views:
            if state.st_mtime < cutoff or total - result.bytes > most:
                path.unlink(missing_ok=True)
                result.views += 1
                result.bytes += state.st_size
        for info in spaces:
            if info.id != keep and (info.used < cutoff or total - result.bytes > most):
                store.index.forget(info.id)  # first: a kill in between leaves files, no more
                remove_space_folder(store.path / "spaces" / info.id)
                result.spaces.append(info)
                result.bytes += info.bytes
        try:
            for info in spaces:
                if info not in result.spaces:
                    result.compacted += compact(store, info.id)
        except (OSError, UnusableStoreError) as error:  # on a full disk, what was freed stays freed
            message = f"Small segments of the embedding store are not merged this time: {error}"
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
    return result


def keep_limit(store: EmbeddingStore, extracted: str) -> None:
    """Free what exceeds the store's own limit, but not the space that was just extracted.

    Where another process adds rows or the store cannot be written, the next extraction does it.
    """
    if store.max_size is not None:
        with contextlib.suppress(StoreError, OSError):
            collect(store, store.max_size, keep=extracted)


def remove_space_folder(folder: Path) -> None:
    """Remove the folder of a space, renamed first, so that no reader finds half a space."""
    doomed = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def leftovers(folder: Path) -> Iterator[Path]:
    """Yield half-written files in a store, except young ones, which may still be under way."""
    young = time.time() - YOUNG_SECONDS
    folders = [folder / name for name in ("spaces", "views", "models")]
    for place in (*folders, *space_folders(folder)):
        for state, path in entries(place, ".partial"):
            if state.st_mtime <= young:
                yield path


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files from a store."""
    for path in leftovers(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
