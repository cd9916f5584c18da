"""The folder ``OUT.partial``, which collects predictions in a Parquet file per batch.

Its files are ``identity.json``, the model, the images and the parameters; ``lock``, which the kernel
holds for the one process that fills the folder, and releases when that ends, however it ends; and for
every batch ``NUMBER-STATE.parquet``, where the state is a digest that changes when its images do.
"""

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
    """The complete batches of one call; a context that one process at a time can enter.

    Parameters
    ----------
    target : path
        The file that will hold all of them.
    identity : str
        A call resumes with the batches of another one if this is the same.
    """

    def __init__(self, target: Path, identity: str) -> None:
        self._target, self._identity = target, identity
        self._folder = target.with_name(f"{target.name}.partial")
        self._lock = -1
        self._names: list[str] = []
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Leave the lock to the parent."""
        self._close_lock()

    def __enter__(self) -> Self:
        self._take_lock()
        try:
            path = self._folder / "identity.json"
            if not path.exists():
                replace_file(path, lambda partial: partial.write_bytes(self._identity.encode()))
            elif path.read_bytes() != self._identity.encode():
                raise InputError(
                    f"{printable(self._folder)!r} holds predictions of another model, other images "
                    "or other parameters; delete it, or choose another output."
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close_lock()

    def has(self, number: int, state: str) -> bool:
        """Return whether the next batch is there; `add` adds it otherwise."""
        self._names.append(f"{number:08d}-{state}.parquet")
        return (self._folder / self._names[-1]).exists()

    def add(self, table: pa.Table) -> None:
        """Save the rows of the batch that was asked for last, durably."""
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        data = sink.getvalue()
        replace_file(self._folder / self._names[-1], lambda partial: partial.write_bytes(data))

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all batches, in order."""
        for path in (self._folder / name for name in self._names):
            try:
                yield parquet.read_table(pa.BufferReader(path.read_bytes()))
            except (pa.ArrowInvalid, OSError) as error:  # both are raised for damaged files
                raise InputError(
                    f"{printable(path)!r} cannot be read ({printable(error)}); delete it, and run "
                    "the command again to predict its images again."
                ) from error

    def remove(self) -> None:
        """Delete the folder; the identity goes after the batches, and the lock last."""
        last = ("identity.json", "lock")
        for path in self._folder.iterdir():
            if path.name not in last:
                path.unlink()
        for name in last:
            (self._folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process has begun
            self._folder.rmdir()

    def _take_lock(self) -> None:
        path = self._folder / "lock"
        while True:
            self._folder.mkdir(exist_ok=True)
            # The process that held the lock removes it.
            with contextlib.suppress(FileNotFoundError):
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._lock_file()
                if os.path.samestat(os.fstat(self._lock), path.stat()):
                    return
                self._close_lock()

    def _close_lock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _lock_file(self) -> None:
        """Lock the open file; raise InputError if another process holds it."""
        try:
            lock_file(self._lock, wait=False)
        except BlockingIOError as error:
            self._close_lock()
            raise InputError(
                f"Another run is predicting into {printable(self._target)!r}; wait for it, or "
                "choose another output."
            ) from error
        except OSError:  # a file system without locks
            pass
