"""A space in memory, for embeddings that are not cached on disk, or not yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

import numpy as np

from featuretl._core.forks import begin_again_after_fork
from featuretl.store.lookup import MISSING, KeyIndex, keys_array


class MemorySpace:
    """Embeddings of width `d` in memory only, as ``cache=None`` uses; see `StoredSpace`."""

    def __init__(self, d: int) -> None:
        self.d = d
        self._index = KeyIndex()
        self._parts: list[np.ndarray] = []
        self.begin_in_child()
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Leave the images under way to the parent."""
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._claimed.clear()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return where the embedding of each key (n,), S32, lies: int64 (n,), or `MISSING`."""
        with self._lock:
            return self._index.find(keys)

    def claim(self, key: bytes, force: bool = False) -> bool | None:
        """Claim an image to embed; False if its embedding is there or under way."""
        with self._lock:
            if key in self._claimed:
                return False
            self._claimed.add(key)
            return bool(self._index.find(keys_array([key]))[0] == MISSING)

    def release(self, key: bytes) -> None:
        """Release a claimed image that cannot be embedded."""
        with self._lock:
            self._claimed.discard(key)

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Add embeddings (n, d) of claimed images."""
        with self._lock:
            self._claimed.difference_update(keys)
            start = len(self._parts) << 32
            self._index.add(keys_array(list(keys)), np.arange(start, start + len(keys)))
            self._parts.append(rows)

    def commit(self) -> None:
        """Do nothing: rows in memory are found as soon as they are appended."""

    def segment_rows(self, number: int) -> np.ndarray:
        """Return a segment's rows (n, d)."""
        return self._parts[number]
