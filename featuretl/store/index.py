"""The index: one SQLite row per committed segment, rebuilt from the segments if it is lost.

It has no WAL, which needs one host and which SQLite 3.7.0 to 3.51.2 can corrupt with many writers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

from featuretl._core.files import lock_file
from featuretl._core.forks import SQLITE, begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning
from featuretl.store.format import (
    DamagedFileError,
    Segment,
    entries,
    open_rows,
    read_keys,
    space_folders,
)
from featuretl.store.local import unusable

T = TypeVar("T")

_BUSY_SECONDS = 60
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# The file was truncated or unlinked while open; other errors of these kinds come from the disk.
_REPLACED = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED)
_TABLE = """CREATE TABLE IF NOT EXISTS segment (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, space TEXT NOT NULL,
    n INTEGER NOT NULL, d INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL)"""
# Finds rows that do not name a segment.
_INVALID_ROWS = """SELECT 1 FROM segment WHERE typeof(uuid) != 'text' OR typeof(space) != 'text'
    OR length(uuid) != 32 OR length(space) != 64 OR uuid GLOB '*[^0-9a-f]*'
    OR space GLOB '*[^0-9a-f]*' OR typeof(n) != 'integer' OR typeof(d) != 'integer'
    OR typeof(size) != 'integer' OR typeof(crc) != 'integer' OR seq < 1 LIMIT 1"""
_SELECT = "SELECT seq, uuid, space, n, d, size, crc FROM segment"
_INSERT = "INSERT OR IGNORE INTO segment (uuid, space, n, d, size, crc) VALUES (?,?,?,?,?,?)"


class Connection(sqlite3.Connection):
    """A connection that is closed when it is dropped; Python 3.13 warns of one that is not."""

    def __del__(self) -> None:
        try:
            self.close()
        except sqlite3.ProgrammingError:  # it could not be opened
            pass


class SegmentIndex:
    """The committed segments of the store in `folder`; thread-safe. Raises UnusableStoreError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "index.sqlite"
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._times_connected = 0
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Open a new connection: a connection belongs to one process."""
        self._connection = None

    def segments(self, space: str, after: int = 0) -> list[tuple[int, Segment]]:
        """Return the segments of a space as (sequence number, segment), in order of commit."""
        query = _SELECT + " WHERE space=? AND seq>? ORDER BY seq"
        rows = self._do(lambda db: db.execute(query, (space, after)).fetchall())
        return [(row[0], Segment(*row[1:])) for row in rows]

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Return the numbers of rows, segments and bytes of each space."""
        columns = "space, SUM(n), COUNT(*), SUM(size + 32 * n + 72)"
        query = f"SELECT {columns} FROM segment GROUP BY space"
        return {row[0]: row[1:] for row in self._do(lambda db: db.execute(query).fetchall())}

    def lists(self, segment: Segment) -> bool:
        """Return whether a segment is still committed, and not freed or compacted."""
        query = "SELECT 1 FROM segment WHERE uuid=?"
        return bool(self._do(lambda db: db.execute(query, (segment.uuid,)).fetchone()))

    def insert(self, new: Segment, replaced: Sequence[Segment] = ()) -> None:
        """Commit a published segment in place of the `replaced` ones, whose files stay."""
        uuids = [(segment.uuid,) for segment in replaced]
        self._commit((_INSERT, [astuple(new)]), ("DELETE FROM segment WHERE uuid=?", uuids))

    def forget(self, space: str) -> None:
        """Remove all segments of a space from the index; their files stay."""
        self._commit(("DELETE FROM segment WHERE space=?", [(space,)]))

    def _commit(self, *statements: tuple[str, list[tuple[Any, ...]]]) -> None:
        def commit(db: sqlite3.Connection) -> None:
            with _transaction(db):
                for statement, rows in statements:
                    db.executemany(statement, rows)

        with SQLITE:
            self._do(commit)
            if not self._is_current():  # rebuilt by another process in between
                self._do(commit)

    def version(self) -> tuple[int, int, int]:
        """Return a value that changes with commits; its first item, if rows are renumbered."""
        with SQLITE:
            data_version = self._do(lambda db: db.execute("PRAGMA data_version").fetchone()[0])
            changes = self._connection.total_changes if self._connection else 0
            return self._times_connected, data_version, changes

    def problem(self) -> str | None:
        """Describe the damage of the index's file, or return None; repair nothing."""
        if not os.path.lexists(self.path):
            return "it is missing"
        with self._usable():
            try:
                with contextlib.closing(self._open()) as db:
                    _check(db)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                return str(error)
        return None

    def rebuild(self) -> None:
        """Rebuild the index from the segments' files; damaged segments stay and are not indexed."""
        with self._usable(), self._exclusive():
            self._recreate()

    def _recreate(self) -> None:
        self._connection = None
        self.path.unlink(missing_ok=True)
        self.path.with_name("index.sqlite-journal").unlink(missing_ok=True)
        self._db()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._usable():
            try:
                return work(self._db())
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._replace_damaged()
                return work(self._db())

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Reserve SQLite for this thread, and turn system errors into UnusableStoreError."""
        with SQLITE:
            try:
                yield
            except (sqlite3.Error, OSError, MemoryError) as error:
                what = f"The index of the embedding store {str(self._folder)!r} cannot be used"
                reason = self._reason(error) if isinstance(error, sqlite3.Error) else error
                raise unusable(what, reason) from error

    def _reason(self, error: Exception) -> Exception:
        """Return why SQLite cannot open the index or its journal, which SQLite does not report."""
        at = self.path if os.path.lexists(self.path) else self._folder
        if at == self.path and os.path.isdir(at):
            return IsADirectoryError(errno.EISDIR, "")
        with contextlib.ExitStack() as stack:
            try:
                for _ in range(4):
                    stack.callback(os.close, os.open(at, os.O_RDONLY))
            except OSError as reason:
                return reason
        return error

    def _db(self) -> sqlite3.Connection:
        if self._connection is None or not self._is_current():
            self._connection = self._connect()
            self._times_connected += 1
            self._inode = self.path.stat().st_ino
        return self._connection

    def _is_current(self) -> bool:
        """Return whether the connected file is still the store's index."""
        try:
            return self._inode == self.path.stat().st_ino
        except OSError:
            return False

    def _connect(self) -> sqlite3.Connection:
        db = self._open()
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("PRAGMA synchronous=EXTRA")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name='segment'").fetchone():
            self._fill(db)
        _check(db)
        return db

    def _open(self) -> sqlite3.Connection:
        writable = os.access(self.path if self.path.exists() else self._folder, os.W_OK)
        return sqlite3.connect(
            f"{self.path.as_uri()}?mode={'rwc' if writable else 'ro'}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )

    def _fill(self, db: sqlite3.Connection) -> None:
        with _transaction(db):
            db.execute(_TABLE)
            db.execute("CREATE INDEX IF NOT EXISTS of_space ON segment (space, seq)")
            if not db.execute("SELECT 1 FROM segment").fetchone():
                db.executemany(_INSERT, map(astuple, self._segments_on_disk()))

    def _segments_on_disk(self) -> Iterator[Segment]:
        sidecars = [
            (state.st_mtime_ns, path)
            for folder in space_folders(self._folder)
            for state, path in entries(folder, ".keys")
        ]
        for _, path in sorted(sidecars):
            with contextlib.suppress(DamagedFileError):
                segment, _ = read_keys(path.parent, path.stem)
                open_rows(path.parent, segment)
                if segment.space == path.parent.name:  # the folder may be renamed for removal
                    yield segment

    def _replace_damaged(self) -> None:
        with self._exclusive():
            self._connection = None
            try:
                self._db()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                # No other process has replaced it meanwhile.
                warnings.warn(
                    f"The index of the embedding store {str(self._folder)!r} is damaged; it is "
                    "rebuilt from the segments.",
                    FeatureTLWarning,
                    stacklevel=6,
                )
                self._recreate()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Prevent two processes from replacing the index simultaneously."""
        with contextlib.ExitStack() as stack:
            if os.name != "nt":  # Windows cannot open folders
                descriptor = os.open(self._folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                with contextlib.suppress(OSError):  # a file system without locks
                    lock_file(descriptor)
            yield


def _check(db: sqlite3.Connection) -> None:
    """Raise DatabaseError unless the file is intact and has valid rows, all of which are read."""
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    # The format's write and read version; with other values SQLite can treat the file as read-only.
    if db.serialize()[18:20] != b"\1\1":
        raise sqlite3.DatabaseError("its header is not that of a rollback-journal database")
    if db.execute(_INVALID_ROWS).fetchone():
        raise sqlite3.DatabaseError("it has rows that do not name a segment")
    db.execute(_SELECT).fetchall()  # raises for text that is not UTF-8


def is_damage(error: Exception) -> bool:
    """Return whether the file's content can cause an error, rather than locks, disk or rights."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)  # missing in errors that Python raises itself
    return code is None or code & 0xFF in _DAMAGED or code in _REPLACED


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits, or after an error rolls back
        yield
