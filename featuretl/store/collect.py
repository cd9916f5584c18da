"""Garbage collection. Readers keep the rows that they have mapped: files are only unlinked."""

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

import numpy as np

from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.store.format import (
    DamagedFileError,
    Segment,
    entries,
    open_checked_rows,
    read_keys,
    read_keys_of,
    space_folders,
    unlink_segment,
    write_segment,
)
from featuretl.store.lookup import MISSING, KeyIndex
from featuretl.store.space import SEGMENT_BYTES, SEGMENT_ROWS
from featuretl.store.store import EmbeddingStore, SpaceInfo

_YOUNG_SECONDS = 3600.0  # without file locks, younger files can belong to a running extraction


@dataclass
class CollectionResult:
    """Result of `collect`."""

    spaces: list[SpaceInfo] = field(default_factory=list)  # freed recipes
    views: int = 0  # freed matrices and exported models
    bytes: int = 0  # freed bytes
    compacted: int = 0  # small segments that were merged into others


def collect(
    store: EmbeddingStore,
    max_size: int | None = None,
    older_than: float | None = None,
    keep: str | None = None,
) -> CollectionResult:
    """Free disk space, and merge the small segments of the remaining spaces.

    Frees matrices (views) before embeddings, and the least recently used first, until the store
    takes at most `max_size` bytes, with all uses at most `older_than` seconds ago. The space `keep`
    stays. Raises StoreError if an extraction is adding rows, or the store cannot be written.
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
                store.index.forget(info.id)  # first, so that a kill only leaves unlisted files
                remove_space_folder(store.path / "spaces" / info.id)
                result.spaces.append(info)
                result.bytes += info.bytes
        try:
            for info in spaces:
                if info not in result.spaces:
                    result.compacted += _compact(store, info.id)
        except (OSError, UnusableStoreError) as error:  # such as a full disk
            message = f"Small segments of the embedding store were not merged: {error}"
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
    return result


def keep_limit(store: EmbeddingStore, extracted: str) -> None:
    """Enforce the store's own size limit, if possible, but keep the space `extracted`."""
    if store.max_size is not None:
        with contextlib.suppress(StoreError, OSError):
            collect(store, store.max_size, keep=extracted)


def remove_space_folder(folder: Path) -> None:
    """Remove the folder of a space, renamed first, so that no reader finds half a space."""
    doomed = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def leftovers(folder: Path) -> Iterator[Path]:
    """Yield partial files in a store, except young ones, which can belong to a running process."""
    young = time.time() - _YOUNG_SECONDS
    folders = [folder / name for name in ("spaces", "views", "models")]
    for place in (*folders, *space_folders(folder)):
        for state, path in entries(place, ".partial"):
            if state.st_mtime <= young:
                yield path


def remove_leftovers(folder: Path) -> None:
    """Remove partial files from a store."""
    for path in leftovers(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _compact(store: EmbeddingStore, space: str) -> int:
    """Merge small segments of a space, see docs/formats.md; return the number of merged ones."""
    folder = store.path / "spaces" / space
    listed = [segment for _, segment in store.index.segments(space)]
    _remove_replaced(folder, listed)
    replaced = 0
    for group in _groups(listed):
        parts: list[tuple[Segment, np.ndarray, np.ndarray]] = []
        for segment in group:
            with contextlib.suppress(DamagedFileError):  # it stays, for `featuretl cache verify`
                keys, rows = read_keys_of(folder, segment), open_checked_rows(folder, segment)
                if not parts or rows.dtype == parts[0][2].dtype:
                    parts.append((segment, keys, rows))
        if len(parts) < 2:
            continue
        good, all_keys, all_rows = zip(*parts, strict=True)
        keys = np.concatenate(all_keys)
        first = np.sort(np.unique(keys, return_index=True)[1])
        rows = np.concatenate(all_rows)[first]
        store.index.insert(write_segment(folder, uuid4().hex, space, keys[first], rows), good)
        for segment in good:
            unlink_segment(folder, segment.uuid)
        replaced += len(good)
    return replaced


def _groups(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield groups of small segments, in order, that fit together into one of full size."""
    group: list[Segment] = []
    rows = size = 0
    for segment in segments:
        if 2 * segment.n >= SEGMENT_ROWS or 2 * segment.size >= SEGMENT_BYTES:
            continue
        if rows + segment.n > SEGMENT_ROWS or size + segment.size > SEGMENT_BYTES:
            yield group
            group, rows, size = [], 0, 0
        group.append(segment)
        rows, size = rows + segment.n, size + segment.size
    yield group


def _remove_replaced(folder: Path, listed: list[Segment]) -> None:
    """Remove old unlisted segments whose keys the listed ones hold: remains of a killed merge."""
    young = time.time() - _YOUNG_SECONDS
    old = {path.stem for state, path in entries(folder, ".keys") if state.st_mtime <= young}
    left = old - {segment.uuid for segment in listed}
    held = KeyIndex()
    for segment in listed if left else []:
        with contextlib.suppress(DamagedFileError):
            held.add(read_keys_of(folder, segment))
    for uuid in left:
        with contextlib.suppress(DamagedFileError):
            if (held.find(read_keys(folder, uuid)[1]) != MISSING).all():
                unlink_segment(folder, uuid)
