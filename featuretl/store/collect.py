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
    """The freed recipes (or activations) and number of ordered matrices, their bytes, and the number of merged segments."""

    spaces: list[SpaceInfo] = field(default_factory=list)
    views: int = 0
    bytes: int = 0
    compacted: int = 0


def collect(
    store: EmbeddingStore,
    max_size: int | None = None,
    older_than: float | None = None,
    keep: str | None = None,
) -> CollectionResult:
    """Free disk space, and merge small segments of what stays.

    Ordered matrices (views) go before embeddings, and the least recently used go first. Files
    that a killed run left half written go in any case.

    Parameters
    ----------
    store : EmbeddingStore
    max_size : int, optional
        Bytes that embeddings and views may take together afterwards.
    older_than : float, optional
        Seconds: free everything that was last used longer ago.
    keep : str, optional
        Id of a space whose embeddings stay in any case.

    Raises
    ------
    StoreError
        If an extraction is adding rows, or the store cannot be written.
    """
    result = CollectionResult()
    if not store.exists():
        return result
    with store.locked_exclusively():
        remove_leftovers(store.path)
        spaces = sorted(store.info(), key=lambda info: info.used)
        views = sorted(_views(store.path), key=lambda view: view[0])
        total = sum(info.bytes for info in spaces) + sum(size for _, size, _ in views)
        cutoff = -math.inf if older_than is None else time.time() - older_than
        most = math.inf if max_size is None else max_size
        for used, size, path in views:
            if used < cutoff or total - result.bytes > most:
                path.unlink(missing_ok=True)
                result.views += 1
                result.bytes += size
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


def _views(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each view (and kept model) was used last, its size and its path."""
    for state, path in entries(folder / "views", ".npy") + entries(folder / "models", ".onnx"):
        yield state.st_mtime, state.st_size, path


def remove_space_folder(folder: Path) -> None:
    """Remove the folder of a space, renamed first, so that no reader finds half a space."""
    doomed = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def leftovers(folder: Path) -> Iterator[Path]:
    """Yield what was left half written in a store; what is young may still be under way."""
    young = time.time() - YOUNG_SECONDS
    folders = [folder / name for name in ("spaces", "views", "models")]
    for place in (*folders, *space_folders(folder)):
        for state, path in entries(place, ".partial"):
            if state.st_mtime <= young:
                yield path


def remove_leftovers(folder: Path) -> None:
    """Remove what was left half written in a store."""
    for path in leftovers(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
