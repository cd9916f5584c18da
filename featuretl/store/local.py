"""The folder of a local store: its lock, its errors, and fallback to no cache if it is optional."""

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

CACHE_VARIABLE = "FEATURETL_CACHE"

_ELSEWHERE = f"choose another folder (cache=, --cache, {CACHE_VARIABLE}) or none (cache=None)"
_GONE = f"if the folder was deleted or moved meanwhile, run the command again, else {_ELSEWHERE}"
_RIGHTS = f"change its permissions, or {_ELSEWHERE}"
_SPACE = f"free disk space or {_ELSEWHERE}"
_REMEDIES: dict[int | None, str] = {
    errno.EMFILE: "close files or raise this process's limit on them (ulimit -n), and try again",
    errno.ENFILE: "close other programs, whose open files reached the system's limit, and try again",
    errno.ENOMEM: "free memory or raise the limits on it (ulimit -v, vm.max_map_count), and try again",
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), _GONE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _RIGHTS),
    # None: SQLite reports a full disk without an error number.
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None), _SPACE),
}


def unusable(what: str, error: Exception, lost: str = "") -> UnusableStoreError:
    """Return the error with the sentence "`what` (reason of `error`)`lost`; remedy."

    `what` names the file or store and the failed action; `lost` is the consequence.
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    remedy = _REMEDIES.get(number, _ELSEWHERE)
    return UnusableStoreError(f"{what} ({reason}){lost}; {remedy}.")


class LocalFolder:
    """A folder with a lock; see `featuretl.store.store.EmbeddingStore` for the attributes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.optional = False
        self.keeps = True
        self._lock_files: list[int] = []
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Close inherited lock files; a forked process locks the store itself when it adds rows."""
        for descriptor in self._lock_files.copy():
            self._close_lock(descriptor)

    def make_folder(self) -> None:
        """Create the store's folder. Raises StoreError if it is not writable."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self.unwritable(PermissionError(errno.EACCES, ""))

    def exists(self) -> bool:
        """Return whether the store's folder exists. Raises StoreError if the system refuses."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.unreadable(error) from error
        return True

    @contextlib.contextmanager
    def locked_shared(self) -> Iterator[None]:
        """Prevent other processes from deleting segments while this one adds rows."""
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
        """Prevent other processes from adding rows. Raises StoreError if one is adding rows now."""
        descriptor = self._open_lock()
        try:
            lock_file(descriptor, wait=False)
            yield
        except BlockingIOError as error:
            raise StoreError(
                f"The embedding store {str(self.path)!r} is in use by an extraction; try again "
                "when the extraction has ended."
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
        if descriptor in self._lock_files:  # otherwise the parent process owns it
            self._lock_files.remove(descriptor)
            os.close(descriptor)

    @contextlib.contextmanager
    def optionally(self) -> Iterator[None]:
        """Run code that needs the store; if an `optional` store fails, warn once and stop caching."""
        try:
            yield
        except StoreError as error:
            if not self.optional:
                raise
            if self.keeps:
                self.keeps = False
                message = f"{error} This run computes the embeddings without caching them."
                warnings.warn(message, FeatureTLWarning, stacklevel=4)

    def unreadable(self, error: OSError) -> UnusableStoreError:
        """Return the error that explains why the store cannot be read."""
        return unusable(f"The embedding store {str(self.path)!r} cannot be read", error)

    def unwritable(self, error: Exception, lost: str = "") -> UnusableStoreError:
        """Return the error that explains why the store cannot be written."""
        return unusable(f"The embedding store {str(self.path)!r} cannot be written", error, lost)
