"""Compaction: small segments are merged into larger ones, and no kill or reader loses a row."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np

from featuretl.store.format import (
    DamagedFileError,
    Segment,
    open_checked_rows,
    read_keys,
    read_keys_of,
    unlink_segment,
    write_segment,
)
from featuretl.store.listing import entries
from featuretl.store.lookup import MISSING, KeyIndex
from featuretl.store.space import SEGMENT_BYTES, SEGMENT_ROWS
from featuretl.store.store import EmbeddingStore

YOUNG_SECONDS = 3600.0  # younger files may be under way where there are no locks


def compact(store: EmbeddingStore, space: str) -> int:
    """Merge the small segments of a space in a store that is locked exclusively; return how many.

    See "Compacting" in `featuretl.store.format`. Raises OSError or UnusableStoreError if something
    cannot be read or written, such as on a full disk; no row is lost.
    """
    folder = store.path / "spaces" / space
    listed = [segment for _, segment in store.index.segments(space)]
    _remove_replaced(folder, listed)
    replaced = 0
    for group in _groups(listed):
        good: list[Segment] = []
        keys: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        for segment in group:
            try:
                keys_here = read_keys_of(folder, segment)
                rows_here = open_checked_rows(folder, segment)
            except DamagedFileError:
                continue  # it stays, for `featuretl cache verify` to name
            if not rows or rows_here.dtype == rows[0].dtype:
                good.append(segment)
                keys.append(keys_here)
                rows.append(rows_here)
        if len(good) < 2:
            continue
        all_keys = np.concatenate(keys)
        kept = np.sort(np.unique(all_keys, return_index=True)[1])  # of each key the first
        merged = np.concatenate(rows)[kept]
        new = write_segment(folder, uuid4().hex, space, all_keys[kept], merged)
        store.index.replace(good, new)
        for segment in good:
            unlink_segment(folder, segment.uuid)
        replaced += len(good)
    return replaced


def _groups(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield small segments, in order, that fit together into one of full size."""
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
    """Remove old files without a row whose keys other segments hold: a kill left them of a merge."""
    young = time.time() - YOUNG_SECONDS
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
