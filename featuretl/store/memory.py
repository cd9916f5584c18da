"""A space in memory: the embeddings of one recipe where none are kept, or as long as they are not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

import numpy as np

from featuretl._core.forks import begin_again_after_fork
from featuretl.store.lookup import MISSING, KeyIndex, keys_array


class MemorySpace:
    """Embeddings kept in memory only: what ``cache=None`` uses.

    Parameters
    ----------
    d : int
        Width of an embedding.
    """

    def __init__(self, d: int) -> None:
        self.d = d
        self._index = KeyIndex()
        self._parts: list[np.ndarray] = []
        self.begin_in_child()
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Leave to the parent what it has under way."""
        self._lock = threading.Lock()
        self._taken: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._taken.clear()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return where the embedding of each key (n,), S32, lies: int64 (n,), or `MISSING`."""
        with self._lock:
            return self._index.find(keys)

    def take(self, key: bytes, force: bool = False) -> bool | None:
        """Ask to embed an image: True if the caller shall, False if it is there or under way."""
        with self._lock:
            if key in self._taken:
                return False
            self._taken.add(key)
            return bool(self._index.find(keys_array([key]))[0] == MISSING)

    def give_up(self, key: bytes) -> None:
        """Take back a `take`: the image cannot be embedded."""
        with self._lock:
            self._taken.discard(key)

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Add embeddings (n, d) of images that were taken."""
        with self._lock:
            self._taken.difference_update(keys)
            start = len(self._parts) << 32
            self._index.add(keys_array(list(keys)), np.arange(start, start + len(keys)))
            self._parts.append(rows)

    def commit(self) -> None:
        """Do nothing: rows in memory are there as soon as they are appended."""

    def segment_rows(self, number: int) -> np.ndarray:
        """Return a segment's rows (n, d)."""
        return self._parts[number]
