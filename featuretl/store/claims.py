"""Claims distribute images among processes that fill one space simultaneously.

A claim is an exclusive one-byte record lock at an offset derived from the image's key. The kernel
binds it to the open file, so it ends with the process and never becomes stale. Open-file-description
locks (Linux 3.15, macOS) also distinguish threads. Without them every claim succeeds: two processes
can then embed the same image, which costs time but no rows.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

try:
    import fcntl

    _SET_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
except ImportError:  # Windows
    _SET_LOCK = None

_FILES = 16  # the kernel searches a file's locks linearly, so they are spread over several files
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


class Claims:
    """The claims of one extraction on one space; all spaces can share `folder`."""

    def __init__(self, folder: Path, space: str) -> None:
        self._folder = folder
        self._salt = int(space[:16], 16)
        self._files: dict[int, int] = {}

    def claim(self, key: bytes) -> bool:
        """Claim an image; return False if another extraction has claimed it."""
        number = key[8] % _FILES
        try:
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
