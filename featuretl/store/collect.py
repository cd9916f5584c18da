"""Garbage collection: free what has not been used for long, and what killed runs have left.

Whatever is freed is embedded again when it is asked for. What stays is compacted. Nothing of this
happens while an extraction adds rows to the store; a reader that has rows in its hands keeps them,
because files are unlinked and never changed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.store.compact import YOUNG_SECONDS, compact
from featuretl.store.listing import entries, space_folders
from featuretl.store.store import EmbeddingStore, SpaceInfo


@dataclass(frozen=True)
class Freed:
    """What `collect` freed.

    Attributes
    ----------
    spaces : list of SpaceInfo
        Recipes whose embeddings (or activations) are gone.
    views : int
        Ordered matrices that are gone.
    bytes : int
        Of both.
    compacted : int
        Number of small segments that were merged into others.
    """

    spaces: list[SpaceInfo]
    views: int
    bytes: int
    compacted: int = 0


def collect(
    store: EmbeddingStore,
    max_size: int | None = None,
    older_than: float | None = None,
    keep: str | None = None,
) -> Freed:
    """Free disk space, and merge small segments of what stays.

    Ordered matrices (views) go before embeddings, and what was used longest ago goes first. Files
    that a killed run left half written go in any case.

    Parameters
    ----------
    store : EmbeddingStore
    max_size : int, optional
        What embeddings and views may take together afterwards.
    older_than : float, optional
        In seconds: free what has not been used since.
    keep : str, optional
        Id of a space whose embeddings stay in any case.

    Returns
    -------
    freed : Freed

    Raises
    ------
    StoreError
        If an extraction is adding rows, or the store cannot be written.
    """
    if not store.exists():
        return Freed([], 0, 0)
    with store.locked_exclusively():
        remove_leftovers(store.path)
        spaces = sorted(store.info(), key=lambda info: info.used)
        views = sorted(_views(store.path), key=lambda view: view[0])
        total = sum(info.bytes for info in spaces) + sum(size for _, size, _ in views)
        cutoff = -float("inf") if older_than is None else time.time() - older_than
        most = float("inf") if max_size is None else max_size
        freed = Freed([], 0, 0)
        for used, size, path in views:
            if used < cutoff or total > most:
                path.unlink(missing_ok=True)
                total -= size
                freed = Freed(freed.spaces, freed.views + 1, freed.bytes + size)
        for info in spaces:
            if info.id != keep and (info.used < cutoff or total > most):
                store.index.forget(info.id)  # first: a kill in between leaves files, no more
                remove_space_folder(store.path / "spaces" / info.id)
                total -= info.bytes
                freed = Freed([*freed.spaces, info], freed.views, freed.bytes + info.bytes)
        kept = [info.id for info in spaces if info not in freed.spaces]
        return replace(freed, compacted=_compact_all(store, kept))


def _compact_all(store: EmbeddingStore, spaces: list[str]) -> int:
    compacted = 0
    try:
        for space in spaces:
            compacted += compact(store, space)
    except (OSError, UnusableStoreError) as error:  # on a full disk, what was freed stays freed
        message = f"Small segments of the embedding store are not merged this time: {error}"
        warnings.warn(message, FeatureTLWarning, stacklevel=3)
    return compacted


def keep_limit(store: EmbeddingStore, extracted: str) -> None:
    """Free what goes beyond the store's own limit, but not the space that was just extracted.

    Where that cannot be done, because another process adds rows or the store cannot be written,
    it is left to the next extraction: the embeddings at hand are good.
    """
    if store.max_size is not None:
        with contextlib.suppress(StoreError, OSError):
            collect(store, store.max_size, keep=extracted)


def _views(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each view (and kept model) was used last, its size and its path."""
    for state, path in entries(folder / "views", ".npy") + entries(folder / "models", ".onnx"):
        yield state.st_mtime, state.st_size, path


def remove_space_folder(folder: Path) -> None:
    """Remove the folder of a space; at once for readers, so that nobody finds half a space."""
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
