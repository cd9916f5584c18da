"""The folder ``OUT.partial``, which collects predictions in one Parquet file per batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pyarrow as pa
from pyarrow import parquet

from featuretl._core.files import lock_file, replace_file
from featuretl._core.forks import begin_again_after_fork
from featuretl._core.text import printable
from featuretl.exceptions import InputError


class Parts:
    """The complete batches of a file `target` and `identity`; one process at a time enters it."""

    def __init__(self, target: Path, identity: str) -> None:
        self._target, self._identity = target, identity
        self._folder = target.with_name(f"{target.name}.partial")
        self._lock = -1
        self._names: list[str] = []
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Close the lock, which belongs to the parent process."""
        self.__exit__()

    def __enter__(self) -> Self:
        self._take_lock()
        try:
            path = self._folder / "identity.json"
            if not path.exists():
                replace_file(path, lambda partial: partial.write_bytes(self._identity.encode()))
            elif path.read_bytes() != self._identity.encode():
                raise InputError(
                    f"{printable(self._folder)!r} has predictions of another model, of other "
                    "images or with other parameters; delete it or choose another output."
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def has(self, number: int, state: str) -> bool:
        """Return whether the next batch is complete; otherwise `add` adds it."""
        self._names.append(f"{number:08d}-{state}.parquet")
        return (self._folder / self._names[-1]).exists()

    def add(self, table: pa.Table) -> None:
        """Write the rows of the last batch passed to `has`, durably."""
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        data = sink.getvalue()
        replace_file(self._folder / self._names[-1], lambda partial: partial.write_bytes(data))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all batches, in order."""
        for path in (self._folder / name for name in self._names):
            try:
                yield parquet.read_table(pa.BufferReader(path.read_bytes()))
            except (pa.ArrowInvalid, OSError) as error:  # damaged files raise either
                raise InputError(
                    f"{printable(path)!r} cannot be read ({printable(error)}); delete it and run "
                    "again to predict its images."
                ) from error

    def remove(self) -> None:
        """Delete the batches, then the identity, then the lock, then the folder."""
        last = ("identity.json", "lock")
        for path in self._folder.iterdir():
            if path.name not in last:
                path.unlink()
        for name in last:
            (self._folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process uses the folder
            self._folder.rmdir()

    def _take_lock(self) -> None:
        path = self._folder / "lock"
        while True:
            self._folder.mkdir(exist_ok=True)
            # A process that finishes removes the lock file between these steps.
            with contextlib.suppress(FileNotFoundError):
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._lock_file()
                if os.path.samestat(os.fstat(self._lock), path.stat()):
                    return
                self.__exit__()

    def _lock_file(self) -> None:
        """Lock the open file; raise InputError if another process holds it."""
        try:
            lock_file(self._lock, wait=False)
        except BlockingIOError as error:
            self.__exit__()
            raise InputError(
                f"Another run is predicting into {printable(self._target)!r}; wait for it, or "
                "choose another output."
            ) from error
        except OSError:  # a file system without locks
            pass
