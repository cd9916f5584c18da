"""A disposable SQLite cache of files' digests and of JSON facts; losing it only costs time."""

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
from featuretl.store.index import Connection, is_damage

_LOOK_UP = "SELECT path, size, mtime, ctime, inode, sha256 FROM file WHERE path IN ({})"
_PATHS_PER_QUERY = 1024


class Memo:
    """Facts in one SQLite file; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Open a new connection: a connection belongs to one process."""
        self._connection = None

    def digests(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return each file's sha256 (32 bytes); None if it is unknown or the file has changed."""
        found: list[bytes | None] = []
        for start in range(0, len(paths), _PATHS_PER_QUERY):
            part = paths[start : start + _PATHS_PER_QUERY]
            names = [_name(path) for path in part]
            known = {row[0]: row[1:] for row in self._read(_LOOK_UP, names)}
            found += map(_digest, part, map(known.get, names))
        return found

    def remember_digests(self, files: Iterable[tuple[str, os.stat_result, bytes]]) -> None:
        """Store (path, state, sha256) of files; the state must be that before hashing."""
        rows = [(_name(path), *_state(state), digest) for path, state, digest in files]
        self._write("INSERT OR REPLACE INTO file VALUES (?,?,?,?,?,?)", rows)

    def get(self, key: str) -> Any:
        """Return the JSON value stored under `key`, or None."""
        with contextlib.suppress(ValueError):
            for (value,) in self._read("SELECT value FROM fact WHERE key IN ({})", [key]):
                return parse_json(value)
        return None

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value under `key`."""
        self._write("INSERT OR REPLACE INTO fact VALUES (?,?)", [(key, json.dumps(value))])

    def clear(self) -> None:
        """Delete the memo. Raises OSError if the file cannot be removed."""
        self._connection = None
        self._path.unlink(missing_ok=True)

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query, in which "{}" is the place of `values`."""
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
    """Return a file's path, size, times and inode (JSON), or None if it cannot be read."""
    try:
        return [os.fspath(path), *_state(os.stat(path))]
    except OSError:
        return None


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, check_same_thread=False, factory=Connection)
    db.execute("PRAGMA synchronous=OFF")  # losing the memo loses nothing
    db.execute(
        "CREATE TABLE IF NOT EXISTS file (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER,"
        " ctime INTEGER, inode INTEGER, sha256 BLOB) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    return db


def _digest(path: str, known: tuple[Any, ...] | None) -> bytes | None:
    """Return the sha256 in a file's row, if the file's state has not changed."""
    try:
        if known is not None and _state(os.stat(path)) == known[:4]:
            return known[4] if isinstance(known[4], bytes) and len(known[4]) == 32 else None
    except (OSError, ValueError):
        pass
    return None


def _name(path: str) -> bytes:
    path = path if path.startswith("/") else os.path.abspath(path)
    return path.encode("utf-8", "surrogatepass")  # surrogates only occur in names of missing files


def _state(state: os.stat_result) -> tuple[int, int, int, int]:
    # An inode can exceed SQLite's signed 64 bits.
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino & (2**63 - 1)
