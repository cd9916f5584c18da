"""The folder of a local store: its lock, its errors, and extraction without it if it is optional."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from featuretl._core.files import lock_file
from featuretl._core.forks import begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.store.unusable import unusable


class LocalFolder:
    """A folder with a lock; see `featuretl.store.store.EmbeddingStore` for the attributes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.optional = False
        self.keeps = True
        self._lock_files: list[int] = []
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Leave the locks to the parent; this process locks the store again where it adds rows."""
        for descriptor in self._lock_files.copy():
            self._close_lock(descriptor)

    def make_folder(self) -> None:
        """Create the store's folder. Raises StoreError if it cannot be written."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self.unwritable(PermissionError(errno.EACCES, ""))

    def exists(self) -> bool:
        """Return whether the store's folder is there. Raises StoreError if that cannot be known."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.unreadable(error) from error
        return True

    @contextlib.contextmanager
    def locked_shared(self) -> Iterator[None]:
        """Keep others from deleting segments while rows are added."""
        with contextlib.ExitStack() as stack:
            with self.optionally():
                self.make_folder()
                descriptor = self._open_lock()
                stack.callback(self._close_lock, descriptor)
                with contextlib.suppress(OSError):  # a file system without locks
                    lock_file(descriptor, shared=True)
            yield

    @contextlib.contextmanager
    def locked_exclusively(self) -> Iterator[None]:
        """Keep rows from being added. Raises StoreError if some are being added now."""
        descriptor = self._open_lock()
        try:
            lock_file(descriptor, wait=False)
            yield
        except BlockingIOError as error:
            raise StoreError(
                f"The embedding store {str(self.path)!r} is in use by an extraction; try again "
                "when that has ended."
            ) from error
        except OSError as error:  # from locking, or from the body
            raise self.unwritable(error) from error
        finally:
            self._close_lock(descriptor)

    def _open_lock(self) -> int:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock_files.append(os.open(self.path / "LOCK", flags, 0o600))
        except OSError as error:
            raise self.unwritable(error) from error
        return self._lock_files[-1]

    def _close_lock(self, descriptor: int) -> None:
        if descriptor in self._lock_files:  # else it was the parent's
            self._lock_files.remove(descriptor)
            os.close(descriptor)

    @contextlib.contextmanager
    def optionally(self) -> Iterator[None]:
        """Run code that needs the store; where an `optional` one fails, warn once and cache no more."""
        try:
            yield
        except StoreError as error:
            if not self.optional:
                raise
            if self.keeps:
                self.keeps = False
                message = f"{error} Embeddings are made all the same, but not kept this time."
                warnings.warn(message, FeatureTLWarning, stacklevel=4)

    def unreadable(self, error: OSError) -> UnusableStoreError:
        """Return the error that says why the store cannot be read."""
        return unusable(f"The embedding store {str(self.path)!r} cannot be read", error)

    def unwritable(self, error: Exception, lost: str = "") -> UnusableStoreError:
        """Return the error that says why the store cannot be written."""
        return unusable(f"The embedding store {str(self.path)!r} cannot be written", error, lost)
