"""Record the file operations of a commit, make them fail, and replay the effects of a crash."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from featuretl.store import format as format_module
from featuretl.store.index import SegmentIndex


@dataclass(frozen=True)
class Operation:
    """A create, write, sync, rename, sync folder or index operation; paths start at the store."""

    name: str
    path: str
    data: bytes = b""
    target: str = ""


@dataclass
class Recorder:
    """Records file operations below `root`; the operation with index `fails` raises `error`."""

    root: Path
    fails: int = -1
    error: OSError | None = None
    operations: list[Operation] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)

    def note(self, name: str, path: Any, data: bytes = b"", target: Any = None) -> None:
        """Record an operation before it runs."""
        relative = [str(Path(p).relative_to(self.root)) if p else "" for p in (path, target)]
        self.operations.append(Operation(name, relative[0], data, relative[1]))
        if len(self.operations) - 1 == self.fails and self.error is not None:
            raise self.error

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wrap the operations for the lifetime of `monkeypatch`."""
        recorder, commit = self, SegmentIndex._commit
        os_open, os_fsync, os_rename = os.open, os.fsync, os.rename

        def open_descriptor(path: Any, flags: int, mode: int = 0o777, **kwargs: Any) -> int:
            if flags & os.O_EXCL:
                recorder.note("create", path)
            descriptor = os_open(path, flags, mode, **kwargs)
            recorder._paths[descriptor] = str(path)
            return descriptor

        def fsync(descriptor: int) -> None:
            path = recorder._paths[descriptor]
            recorder.note("sync folder" if Path(path).is_dir() else "sync", path)
            os_fsync(descriptor)

        def rename(source: Any, target: Any) -> None:
            recorder.note("rename", source, target=target)
            os_rename(source, target)

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                try:
                    recorder.note("write", recorder._paths[self.fileno()], bytes(data))
                except OSError:
                    super().write(data[: len(data) // 2])  # a full disk writes a part of the data
                    raise
                return super().write(data)

        def open_file(descriptor: int, mode: str, buffering: int) -> File:
            assert buffering == 0
            return File(descriptor, mode)

        def recorded_commit(index: SegmentIndex, *statements: Any) -> None:
            commit(index, *statements)
            path = self.root / "index.sqlite"  # SQLite's own writes count as one operation
            recorder.operations.append(Operation("index", path.name, path.read_bytes()))

        for owner, name, wrapped in [
            (os, "open", open_descriptor),
            (os, "fsync", fsync),
            (os, "rename", rename),
            (format_module, "open", open_file),
            (SegmentIndex, "_commit", recorded_commit),
        ]:
            monkeypatch.setattr(owner, name, wrapped, raising=False)


@dataclass
class _File:
    """The content of a file as written, and as of its last sync."""

    data: bytes = b""
    synced: bytes = b""


def _empty(file: _File) -> bytes:
    return file.synced


def _zeros(file: _File) -> bytes:
    return file.synced + bytes(len(file.data) - len(file.synced))


def _whole(file: _File) -> bytes:
    return file.data


LOSSES: list[Callable[[_File], bytes]] = [_whole, _empty, _zeros]


def after_a_crash(operations: list[Operation]) -> Iterator[dict[str, bytes]]:
    """Yield the possible disk contents (new files by name) if the power fails after `operations`.

    Data that was not synced may be present, missing, or zeros of the right length. Each name that
    changed since its folder was synced may be the old or the new one.
    """
    names: dict[str, _File] = {}  # as processes see them
    durable: dict[str, _File] = {}
    changes: list[tuple[str, str, _File]] = []  # changes of names since the folder was synced
    for operation in operations:
        if operation.name in ("create", "index"):
            file = names[operation.path] = _File(operation.data, operation.data)
            changes.append(("", operation.path, file))
        elif operation.name == "write":
            names[operation.path].data += operation.data
        elif operation.name == "sync":
            names[operation.path].synced = names[operation.path].data
        elif operation.name == "rename":
            file = names[operation.target] = names.pop(operation.path)
            changes.append((operation.path, operation.target, file))
        if operation.name in ("sync folder", "index"):  # SQLite syncs its own file
            kept = changes if operation.name == "sync folder" else changes[-1:]
            durable, changes = _renamed(durable, kept), [c for c in changes if c not in kept]
    for lost in LOSSES:
        for happened in itertools.product([True, False], repeat=len(changes)):
            there = _renamed(durable, list(itertools.compress(changes, happened)))
            yield {name: lost(file) for name, file in there.items()}


def _renamed(names: dict[str, _File], changes: list[tuple[str, str, _File]]) -> dict[str, _File]:
    names = dict(names)
    for source, target, file in changes:
        names.pop(source, None)
        names[target] = file
    return names
