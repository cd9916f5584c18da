"""A disposable SQLite cache of file digests and small JSON facts.

Two kinds of facts: the sha256 of a file whose state has not changed since it was hashed (as git's
index does), and small JSON values. A memo that cannot be read or written only costs time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from featuretl._core.forks import SQLITE, begin_again_after_fork
from featuretl._core.text import parse_json
from featuretl.store.index import is_damage

_LOOK_UP = "SELECT path, size, mtime, ctime, inode, sha256 FROM file WHERE path IN ({})"
_PATHS_AT_ONCE = 4096


class Memo:
    """Facts in one SQLite file; any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Open the file again: a connection belongs to one process."""
        self._connection = None

    def digests(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return for each file its sha256 (32 bytes) if its state is as remembered, else None."""
        found: list[bytes | None] = []
        for start in range(0, len(paths), _PATHS_AT_ONCE):
            part = paths[start : start + _PATHS_AT_ONCE]
            names = [_name(path) for path in part]
            known = {row[0]: row[1:] for row in self._read(_LOOK_UP, names)}
            found += map(_digest, part, map(known.get, names))
        return found

    def remember_digests(self, files: Iterable[tuple[str, os.stat_result, bytes]]) -> None:
        """Remember (path, state, sha256) of files; the state must be as it was when hashed."""
        rows = [(_name(path), *_state(state), digest) for path, state, digest in files]
        self._write("INSERT OR REPLACE INTO file VALUES (?,?,?,?,?,?)", rows)

    def get(self, key: str) -> Any:
        """Return the JSON value remembered under `key`, or None."""
        with contextlib.suppress(ValueError):
            for (value,) in self._read("SELECT value FROM fact WHERE key IN ({})", [key]):
                return parse_json(value)
        return None

    def put(self, key: str, value: Any) -> None:
        """Remember a JSON value under `key`."""
        self._write("INSERT OR REPLACE INTO fact VALUES (?,?)", [(key, json.dumps(value))])

    def clear(self) -> None:
        """Forget everything. Raises OSError if the file cannot be removed."""
        self._connection = None
        self._path.unlink(missing_ok=True)

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what a query finds; "{}" in it stands for the values."""
        with SQLITE, contextlib.suppress(sqlite3.Error, MemoryError):
            db = self._open()
            return db.execute(query.format(",".join("?" * len(values))), values).fetchall()
        return []

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with SQLITE, contextlib.suppress(sqlite3.Error, MemoryError):
            if rows:
                with self._open() as db:
                    db.executemany(statement, rows)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _connect(self._path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                with contextlib.suppress(OSError):
                    self._path.unlink()
                self._connection = _connect(self._path)
        return self._connection


def file_state(path: str | os.PathLike[str]) -> list[Any] | None:
    """Return the state of a file (JSON) that changes with its content, or None."""
    try:
        return [os.fspath(path), *_state(os.stat(path))]
    except OSError:
        return None


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, check_same_thread=False)
    db.execute("PRAGMA synchronous=OFF")  # losing the memo loses nothing
    db.execute(
        "CREATE TABLE IF NOT EXISTS file (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER,"
        " ctime INTEGER, inode INTEGER, sha256 BLOB) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    return db


def _digest(path: str, known: tuple[Any, ...] | None) -> bytes | None:
    """Return the sha256 that is remembered of a file, if its state is as it was."""
    try:
        if known is not None and _state(os.stat(path)) == known[:4]:
            return known[4] if isinstance(known[4], bytes) and len(known[4]) == 32 else None
    except (OSError, ValueError):
        pass
    return None


def _name(path: str) -> bytes:
    path = path if path.startswith("/") else os.path.abspath(path)
    return path.encode("utf-8", "surrogatepass")  # such a file cannot be there, and is not found


def _state(state: os.stat_result) -> tuple[int, int, int, int]:
    # An inode may pass SQLite's signed 64 bits.
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino & (2**63 - 1)
