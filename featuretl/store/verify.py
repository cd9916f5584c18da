"""Verification of a whole store, except memo and exported models: each use of these checks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featuretl.store.collect import leftovers, remove_leftovers, remove_space_folder
from featuretl.store.format import (
    DamagedFileError,
    Segment,
    check_view,
    entries,
    open_checked_rows,
    read_keys,
    unlink_segment,
)
from featuretl.store.lookup import MISSING, KeyIndex
from featuretl.store.record import read_record
from featuretl.store.store import EmbeddingStore

_Checked = tuple[Segment, np.ndarray] | DamagedFileError


@dataclass(frozen=True)
class Finding:
    """A damaged or leftover file."""

    path: Path
    problem: str  # can hold characters from the file; print it through `printable`
    rows: int = 0  # number of lost embeddings, which are computed again on demand
    damaged: bool = True  # False for a leftover of a killed run, which nothing reads


def verify(store: EmbeddingStore, repair: bool = False) -> list[Finding]:
    """Read the whole store, and return its damaged and leftover files.

    With `repair`, unlink these and rebuild the index. Raises StoreError, before unlinking anything,
    if a file cannot be read, or with `repair` if an extraction is adding rows.
    """
    if not store.exists():
        return []
    if not repair:
        try:
            return list(_findings(store))
        except OSError as error:
            raise store.unusable("read", error) from error
    with store.locked_exclusively():
        findings = list(_findings(store))
        for path in (finding.path for finding in findings):
            if path.suffix in (".npy", ".keys"):
                unlink_segment(path.parent, path.stem)
            elif path.name == "space.json" and path.parent.exists():
                remove_space_folder(path.parent)
        remove_leftovers(store.path)
        if findings:
            store.index.rebuild()
    return findings


def rebuild(store: EmbeddingStore) -> tuple[int, int]:
    """Rebuild a store's index from its segments and clear its memo; return (segments, rows)."""
    if not store.exists():
        return 0, 0
    with store.locked_exclusively():
        store.index.rebuild()
        store.memo.clear()
        sizes = store.index.sizes().values()
    return sum(size[1] for size in sizes), sum(size[0] for size in sizes)


def _findings(store: EmbeddingStore) -> Iterator[Finding]:
    spaces = set(store.space_names())
    problem = store.index.problem()
    if problem is None:
        spaces |= store.index.sizes().keys()
    elif spaces or store.index.path.exists():
        yield Finding(store.index.path, problem)
    for identity in sorted(spaces):
        yield from _check_space(store, identity, trusted=problem is None)
    for _, path in entries(store.path / "views", ".npy"):
        try:
            check_view(path)
        except DamagedFileError as error:
            if path.exists():  # otherwise it was freed meanwhile
                yield Finding(path, error.problem)
    for path in sorted(leftovers(store.path)):
        yield Finding(path, "a killed run left it half written", damaged=False)


def _check_space(store: EmbeddingStore, identity: str, trusted: bool) -> Iterator[Finding]:
    """Yield the findings in a space; `trusted` says whether the index is intact."""
    folder = store.path / "spaces" / identity
    try:
        n_features = read_record(folder / "space.json")["recipe"]["output"]["n_features"]
    except DamagedFileError as error:
        indexed = _indexed(store, identity) if trusted else {}
        if folder.exists() or indexed:  # otherwise the space was freed meanwhile
            rows = _n_lost(folder, _on_disk(folder) | set(indexed), indexed, KeyIndex())
            yield Finding(error.path, error.problem, rows)
        return
    checked = {uuid: _check_segment(folder, uuid, n_features) for uuid in _on_disk(folder)}
    # Read after the files: segments freed meanwhile are no longer listed, and new ones are on disk.
    indexed = _indexed(store, identity) if trusted else {}
    for uuid in set(indexed) - set(checked):
        checked[uuid] = _check_segment(folder, uuid, n_features)
    listed = set(indexed if trusted else checked)
    whole = KeyIndex()
    for found in (checked[uuid] for uuid in listed):
        if not isinstance(found, DamagedFileError):
            whole.add(found[1])
    for uuid, found in sorted(checked.items()):
        if not isinstance(found, DamagedFileError):
            if trusted and indexed.get(uuid) != found[0]:
                problem = f"it does not describe the segment {identity}/{uuid} correctly"
                yield Finding(store.index.path, problem, damaged=uuid in indexed)
        elif uuid in listed:
            yield Finding(found.path, found.problem, _n_lost(folder, {uuid}, indexed, whole))
        elif uuid in _on_disk(folder):
            yield Finding(found.path, f"{found.problem}; a killed run left it", damaged=False)


def _check_segment(folder: Path, uuid: str, n_features: int) -> _Checked:
    """Return a segment and its keys S32 (n,), or its damage."""
    try:
        segment, keys = read_keys(folder, uuid)
        if (segment.space, segment.d) != (folder.name, n_features):
            raise DamagedFileError(segment.path(folder, ".keys"), "it belongs to another space")
        open_checked_rows(folder, segment)
    except DamagedFileError as error:
        return error
    return segment, keys


def _on_disk(folder: Path) -> set[str]:
    return {path.stem for _, path in entries(folder, ".npy", ".keys")}


def _indexed(store: EmbeddingStore, identity: str) -> dict[str, Segment]:
    return {segment.uuid: segment for _, segment in store.index.segments(identity)}


def _n_lost(folder: Path, uuids: set[str], indexed: dict[str, Segment], whole: KeyIndex) -> int:
    """Return at most how many embeddings of damaged segments no intact segment holds."""
    lost = 0
    for uuid in uuids:
        try:
            keys = read_keys(folder, uuid)[1]
            lost += len(np.unique(keys[whole.find(keys) == MISSING]))
        except DamagedFileError:
            lost += indexed[uuid].n if uuid in indexed else 0
    return lost
