"""Map millions of 32-byte keys to the locations of their rows, with cheap appends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featuretl.store.format import KEY_DTYPE

MISSING = -1


class KeyIndex:
    """Sorted runs of (key, location), merged as they grow, as in a log-structured merge tree.

    Locations are int64 >= 0; the first one of a key wins. A pair takes 40 bytes; n pairs take
    O(n log n) comparisons.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def keys(self) -> np.ndarray:
        """Return all distinct keys, sorted: S32 (n,)."""
        return np.unique(np.concatenate([np.empty(0, KEY_DTYPE), *(run[0] for run in self._runs)]))

    def where(self, keep: Callable[[np.ndarray], np.ndarray]) -> KeyIndex:
        """Return the pairs for whose locations, int64 (n,), `keep` returns True."""
        found = KeyIndex()
        for keys, locations in self._runs:
            kept = keep(locations)
            found.add(keys[kept], locations[kept])
        return found

    def add(self, keys: np.ndarray, locations: np.ndarray | None = None) -> None:
        """Add keys, S32 (n,), with locations, int64 (n,), by default 0."""
        if not len(keys):
            return
        if locations is None:
            locations = np.zeros(len(keys), np.int64)
        runs, newer = self._runs.copy(), _sorted(keys, locations)
        while runs and len(runs[-1][0]) <= 2 * len(newer[0]):
            keys, locations = map(np.concatenate, zip(runs.pop(), newer, strict=True))
            newer = _sorted(keys, locations)
        self._runs = [*runs, newer]  # in one step, because another thread can fork this process

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the location of each key, S32 (n,), as int64 (n,); `MISSING` if there is none."""
        found = np.full(len(keys), MISSING, np.int64)
        for run_keys, run_locations in self._runs:
            open_ = np.flatnonzero(found == MISSING)
            if not len(open_):
                break
            wanted = keys[open_]
            at = np.minimum(np.searchsorted(run_keys, wanted), len(run_keys) - 1)
            hit = run_keys[at] == wanted
            found[open_[hit]] = run_locations[at[hit]]
        return found


def keys_array(keys: list[bytes]) -> np.ndarray:
    """Return 32-byte keys as an array, S32 (n,)."""
    return np.frombuffer(b"".join(keys), KEY_DTYPE)


def keys_list(keys: np.ndarray) -> list[bytes]:
    """Return keys, S32 (n,), as 32 bytes each, with the zeros at their ends."""
    return keys.view("V32").tolist()


def _sorted(keys: np.ndarray, locations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order in which they came
    return keys[order], locations[order]
