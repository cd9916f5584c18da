"""The list of committed segments: one SQLite row each, rebuilt from the segments when it is lost.

Rollback journal and ``synchronous=EXTRA``, not WAL: WAL needs all processes on one host, and SQLite
3.7.0 to 3.51.2 can corrupt a WAL database with concurrent writers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from featuretl._core.files import lock_file
from featuretl._core.forks import SQLITE, begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning
from featuretl.store.format import DamagedFileError, Segment, open_rows, read_keys
from featuretl.store.listing import entries, space_folders
from featuretl.store.unusable import unusable

T = TypeVar("T")

_BUSY_SECONDS = 60
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Truncated, or unlinked, while it is open: other errors of these kinds are the disk's.
_REPLACED = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED)
_TABLE = """CREATE TABLE IF NOT EXISTS segment (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, space TEXT NOT NULL,
    n INTEGER NOT NULL, d INTEGER NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL)"""
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE name='segment'"
# Rows that an index must not have, because they name no segment.
_OTHER_ROWS = """SELECT 1 FROM segment WHERE typeof(uuid) != 'text' OR typeof(space) != 'text'
    OR length(uuid) != 32 OR length(space) != 64 OR uuid GLOB '*[^0-9a-f]*'
    OR space GLOB '*[^0-9a-f]*' OR typeof(n) != 'integer' OR typeof(d) != 'integer'
    OR typeof(size) != 'integer' OR typeof(crc) != 'integer' OR seq < 1 LIMIT 1"""
_SELECT = "SELECT seq, uuid, space, n, d, size, crc FROM segment"
_INSERT = "INSERT OR IGNORE INTO segment (uuid, space, n, d, size, crc) VALUES (?,?,?,?,?,?)"


class SegmentIndex:
    """The committed segments of the store in `folder`; any thread may use it.

    Raises
    ------
    UnusableStoreError
        From every method, if the index cannot be read, or written where that is asked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "index.sqlite"
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._times_connected = 0
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Open the index again: a connection belongs to one process."""
        self._connection = None

    def segments(self, space: str, after: int = 0) -> list[tuple[int, Segment]]:
        """Return the segments of a space as (sequence number, segment), in order of commit."""
        query = _SELECT + " WHERE space=? AND seq>? ORDER BY seq"
        rows = self._do(lambda db: db.execute(query, (space, after)).fetchall())
        return [(row[0], Segment(*row[1:])) for row in rows]

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Return for each space its number of rows, of segments and of bytes."""
        query = (
            "SELECT space, SUM(n), COUNT(*), SUM(size + 32 * n + 72) FROM segment GROUP BY space"
        )
        return {row[0]: row[1:] for row in self._do(lambda db: db.execute(query).fetchall())}

    def lists(self, segment: Segment) -> bool:
        """Return whether a segment is still committed: not freed or compacted."""
        query = "SELECT 1 FROM segment WHERE uuid=?"
        return bool(self._do(lambda db: db.execute(query, (segment.uuid,)).fetchone()))

    def insert(self, segment: Segment) -> None:
        """Commit a segment whose files are published."""
        self._commit((_INSERT, [_values(segment)]))

    def replace(self, old: Sequence[Segment], new: Segment) -> None:
        """Commit a published segment in the place of others, whose files stay."""
        uuids = [(segment.uuid,) for segment in old]
        self._commit((_INSERT, [_values(new)]), ("DELETE FROM segment WHERE uuid=?", uuids))

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
        """Return a value that differs from the last one if a segment was committed since.

        Where its first item differs, this may be another index, with other sequence numbers.
        """
        with SQLITE:
            data_version = self._do(lambda db: db.execute("PRAGMA data_version").fetchone()[0])
            changes = self._connection.total_changes if self._connection else 0
            return self._times_connected, data_version, changes

    def problem(self) -> str | None:
        """Return what is wrong with the index's file, or None; nothing is repaired."""
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
        """Rebuild the index from the segments' own files; damaged ones stay and are not indexed.

        A damaged or missing index is rebuilt automatically.
        """
        with self._usable(), self._exclusive():
            self._start_again()

    def _start_again(self) -> None:
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
        """Let this thread alone use SQLite; an error of the system is raised as UnusableStoreError."""
        with SQLITE:
            try:
                yield
            except (sqlite3.Error, OSError, MemoryError) as error:
                what = f"The index of the embedding store {str(self._folder)!r} cannot be used"
                reason = self._reason(error) if isinstance(error, sqlite3.Error) else error
                raise unusable(what, reason) from error

    def _reason(self, error: Exception) -> Exception:
        """Return why SQLite cannot open a file, its journal or their folder, which it does not say."""
        at = self.path if os.path.lexists(self.path) else self._folder
        opened: list[int] = []
        try:
            if at.is_dir() and at == self.path:
                return IsADirectoryError(errno.EISDIR, "")
            while len(opened) < 4:
                opened.append(os.open(at, os.O_RDONLY))
        except OSError as reason:
            return reason
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return error

    def _db(self) -> sqlite3.Connection:
        if self._connection is None or not self._is_current():
            self._connection = self._connect()
            self._times_connected += 1
            self._inode = self.path.stat().st_ino
        return self._connection

    def _is_current(self) -> bool:
        """Return whether the connection's file is still the index."""
        try:
            return self._inode == self.path.stat().st_ino
        except OSError:
            return False

    def _connect(self) -> sqlite3.Connection:
        db = self._open()
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("PRAGMA synchronous=EXTRA")
        if not db.execute(_HAS_TABLE).fetchone():
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
        )

    def _fill(self, db: sqlite3.Connection) -> None:
        with _transaction(db):
            db.execute(_TABLE)
            db.execute("CREATE INDEX IF NOT EXISTS of_space ON segment (space, seq)")
            if not db.execute("SELECT 1 FROM segment").fetchone():
                db.executemany(_INSERT, map(_values, self._segments_on_disk()))

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
                if segment.space == path.parent.name:  # not of a space that is being removed
                    yield segment

    def _replace_damaged(self) -> None:
        with self._exclusive():
            self._connection = None
            try:
                self._db()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                # Still: no other process has replaced it meanwhile.
                warnings.warn(
                    f"The index of the embedding store {str(self._folder)!r} is damaged; it is made "
                    "anew from the segments.",
                    FeatureTLWarning,
                    stacklevel=6,
                )
                self._start_again()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep two processes from replacing the index together."""
        if os.name == "nt":  # where a folder cannot be opened
            yield
            return
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                lock_file(descriptor)
            yield
        finally:
            os.close(descriptor)


def _check(db: sqlite3.Connection) -> None:
    """Raise DatabaseError unless the file is whole and has the table; it has few rows."""
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    # Bytes of the header that say how to read and to write: else SQLite may call it read-only.
    if db.serialize()[18:20] != b"\1\1":
        raise sqlite3.DatabaseError("its header is not that of a rollback-journal database")
    if db.execute(_OTHER_ROWS).fetchone():
        raise sqlite3.DatabaseError("it has rows that name no segment")
    db.execute(_SELECT).fetchall()  # as text and numbers


def is_damage(error: Exception) -> bool:
    """Return whether an error may come from the file's content, not from locks, disk or rights."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", None)  # Python's own errors have none
    return code is None or code & 0xFF in _DAMAGED or code in _REPLACED


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _values(segment: Segment) -> tuple[Any, ...]:
    return segment.uuid, segment.space, segment.n, segment.d, segment.size, segment.crc
