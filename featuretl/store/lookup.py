"""Map millions of 32-byte keys to the locations of their rows, with cheap appends."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from featuretl.store.format import KEY_DTYPE

MISSING = -1


class KeyIndex:
    """Runs of (key, location), merged as they grow, as in a log-structured merge tree.

    Locations are int64 >= 0; the first one of a key wins. A pair takes 48 bytes. Each run sorts
    codes of 64 bits, the high bits of a key's hash and its position: far faster than sorting keys.
    """

    def __init__(self) -> None:
        # Odd factors of the four words of a key, whose sum is then uniform even for keys that are
        # no digests; random, so that nobody can make files whose sums begin alike.
        self._factors = np.frombuffer(os.urandom(32), "<u8") | np.uint64(1)
        self._runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def keys(self) -> np.ndarray:
        """Return all distinct keys, sorted: S32 (n,)."""
        return np.unique(np.concatenate([np.empty(0, KEY_DTYPE), *(run[0] for run in self._runs)]))

    def where(self, keep: Callable[[np.ndarray], np.ndarray]) -> KeyIndex:
        """Return the pairs for whose locations, int64 (n,), `keep` returns True."""
        found = KeyIndex()
        for keys, locations, _ in self._runs:
            kept = keep(locations)
            found.add(keys[kept], locations[kept])
        return found

    def add(self, keys: np.ndarray, locations: np.ndarray | None = None) -> None:
        """Add keys, S32 (n,), with locations, int64 (n,), by default 0."""
        if not len(keys):
            return
        if locations is None:
            locations = np.zeros(len(keys), np.int64)
        runs, merged = self._runs.copy(), [(keys, locations)]
        n = len(keys)
        while runs and len(runs[-1][0]) <= 2 * n:
            merged.insert(0, runs.pop()[:2])
            n += len(merged[0][0])
        if len(merged) > 1:
            keys, locations = map(np.concatenate, zip(*merged, strict=True))
        codes = self._prefixes(keys, n)
        codes |= np.arange(n, dtype=np.uint64)
        codes.sort()
        # In one step, because another thread can fork this process.
        self._runs = [*runs, (keys, locations, codes)]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the location of each key, S32 (n,), as int64 (n,); `MISSING` if there is none."""
        found = np.full(len(keys), MISSING, np.int64)
        for run_keys, run_locations, codes in self._runs:
            n = len(codes)
            open_ = np.flatnonzero(found == MISSING)
            prefixes = self._prefixes(keys[open_], n)
            at = np.searchsorted(codes, prefixes)
            while len(open_):  # once, unless hashes of several keys begin alike
                code = codes[np.minimum(at, n - 1)]
                same = (at < n) & (code - prefixes < n)
                open_, prefixes, at, code = open_[same], prefixes[same], at[same] + 1, code[same]
                position = (code - prefixes).astype(np.int64)
                hit = run_keys[position] == keys[open_]
                found[open_[hit]] = run_locations[position[hit]]
                open_, prefixes, at = open_[~hit], prefixes[~hit], at[~hit]
        return found

    def _prefixes(self, keys: np.ndarray, n: int) -> np.ndarray:
        """Return the hashes of keys, uint64, with zeros in the bits that number n positions."""
        hashes: np.ndarray = np.ascontiguousarray(keys).view("<u8").reshape(-1, 4) @ self._factors
        hashes >>= np.uint64(n.bit_length())
        hashes <<= np.uint64(n.bit_length())
        return hashes


def keys_array(keys: list[bytes]) -> np.ndarray:
    """Return 32-byte keys as an array, S32 (n,)."""
    return np.frombuffer(b"".join(keys), KEY_DTYPE)


def keys_list(keys: np.ndarray) -> list[bytes]:
    """Return keys, S32 (n,), as 32 bytes each, with the zeros at their ends."""
    return keys.view("V32").tolist()
