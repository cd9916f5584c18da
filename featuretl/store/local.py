"""The folder of a local store: its lock, claims on images, errors, and fallback to no cache."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from featuretl._core.files import lock_file
from featuretl._core.forks import begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError

try:
    import fcntl

    _SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
except ImportError:  # Windows
    _SET_LOCK = None

CACHE_VARIABLE = "FEATURETL_CACHE"

_FILES = 16  # the kernel searches a file's locks linearly, so they are spread over several files
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_ELSEWHERE = f"choose another folder (cache=, --cache, {CACHE_VARIABLE}) or none (cache=None)"
_GONE = f"if the folder was deleted or moved meanwhile, run the command again, else {_ELSEWHERE}"
_RIGHTS = f"change its permissions, or {_ELSEWHERE}"
_SPACE = f"free disk space or {_ELSEWHERE}"
_REMEDIES: dict[int | None, str] = {
    errno.EMFILE: "close files or raise this process's limit on them (ulimit -n), and try again",
    errno.ENFILE: "close other programs, because their open files reached the limit, and try again",
    errno.ENOMEM: "free memory or raise its limits (ulimit -v, vm.max_map_count), and try again",
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), _GONE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _RIGHTS),
    # None: SQLite reports a full disk without an error number.
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None), _SPACE),
}


def unusable(what: str, error: Exception, lost: str = "") -> UnusableStoreError:
    """Return the error "`what` (reason of `error`)`lost`; remedy."; `lost` is the consequence."""
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
            raise self.unusable("written", error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise self.unusable("written", PermissionError(errno.EACCES, ""))

    def exists(self) -> bool:
        """Return whether the store's folder exists. Raises StoreError if the system refuses."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.unusable("read", error) from error
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
            raise self.unusable("written", error) from error
        finally:
            self._close_lock(descriptor)

    def _open_lock(self) -> int:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock_files.append(os.open(self.path / "LOCK", flags, 0o600))
        except OSError as error:
            raise self.unusable("written", error) from error
        return self._lock_files[-1]

    def _close_lock(self, descriptor: int) -> None:
        if descriptor in self._lock_files:  # otherwise the parent process owns it
            self._lock_files.remove(descriptor)
            os.close(descriptor)

    @contextlib.contextmanager
    def optionally(self) -> Iterator[None]:
        """Run code that needs the store; if an `optional` store fails, warn and stop caching."""
        try:
            yield
        except StoreError as error:
            if not self.optional:
                raise
            if self.keeps:
                self.keeps = False
                message = f"{error} This run computes the embeddings without caching them."
                warnings.warn(message, FeatureTLWarning, stacklevel=4)

    def unusable(self, done: str, error: Exception, lost: str = "") -> UnusableStoreError:
        """Return the error that explains why the store cannot be `done`: "read" or "written"."""
        return unusable(f"The embedding store {str(self.path)!r} cannot be {done}", error, lost)


class Claims:
    """The claims of one extraction on images of one space; all spaces share `folder`.

    A claim locks one byte, at an offset derived from the image's key, for an open file description:
    it distinguishes threads and ends with the process. Without such locks every claim succeeds.
    """

    def __init__(self, folder: Path, space: str) -> None:
        self._folder = folder
        self._salt = int(space[:16], 16)
        self._files: dict[int, int] = {}
        self._opening = threading.Lock()

    def claim(self, key: bytes) -> bool:
        """Claim an image; return False if another extraction has claimed it."""
        number = key[8] % _FILES
        try:
            with self._opening:
                if number not in self._files:
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                    self._files[number] = os.open(self._folder / f"{number:02x}", flags, 0o600)
            self._lock(key)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
        return True

    def release(self, key: bytes) -> None:
        """Release the claim on an image, if it is claimed."""
        if key[8] % _FILES in self._files:
            with contextlib.suppress(OSError):
                self._lock(key, unlock=True)

    def release_all(self) -> None:
        """Release all claims."""
        self._opening = threading.Lock()  # a forked child could have a locked one
        for descriptor in self._files.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._files.clear()

    def _lock(self, key: bytes, unlock: bool = False) -> None:
        if _SET_LOCK is not None:
            kind = fcntl.F_UNLCK if unlock else fcntl.F_WRLCK
            offset = (int.from_bytes(key[:8], "big") ^ self._salt) >> 1
            lock = _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0)
            fcntl.fcntl(self._files[key[8] % _FILES], _SET_LOCK, lock)
