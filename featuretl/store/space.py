"""A space: all embeddings of one recipe, by image, in a store or in memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Self
from uuid import uuid4

import numpy as np

from featuretl._core.files import each
from featuretl._core.forks import begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store.format import (
    DamagedFileError,
    Segment,
    open_checked_rows,
    read_keys_of,
    write_segment,
)
from featuretl.store.index import SegmentIndex
from featuretl.store.local import Claims, LocalFolder
from featuretl.store.lookup import MISSING, KeyIndex, keys_array

SEGMENT_ROWS = 16_384
SEGMENT_BYTES = 128 * 2**20
SEGMENT_SECONDS = 60.0


class Space:
    """Embeddings of width `d` by image, in memory only, as ``cache=None`` uses; thread-safe."""

    def __init__(self, d: int) -> None:
        self.d = d
        self._index = KeyIndex()
        self._numbers = itertools.count()  # of segments
        self._rows: dict[int, np.ndarray] = {}
        self.begin_in_child()
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Drop the claims, which belong to the parent process."""
        self._lock = threading.RLock()
        self._claimed: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._claimed.clear()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the location of each key, S32 (n,), as int64 (n,); `MISSING` if there is none."""
        with self._lock:
            return self._index.find(keys)

    def claim(self, keys: list[bytes], force: bool = False) -> list[bool | None]:
        """Claim images to embed; return False for those that are embedded or claimed already."""
        with self._lock:
            missing = (self._index.find(keys_array(keys)) == MISSING).tolist()
            claimed: list[bool | None] = []
            for key, is_missing in zip(keys, missing, strict=True):
                claimed.append(is_missing and key not in self._claimed)
                self._claimed.add(key)
            return claimed

    def release(self, key: bytes) -> None:
        """Release a claimed image that cannot be embedded, so that others can try."""
        with self._lock:
            self._claimed.discard(key)

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Add embeddings (n, d) of claimed images."""
        with self._lock:
            self._claimed.difference_update(keys)
            number = next(self._numbers)
            self._rows[number] = rows
            self._index.add(keys_array(list(keys)), _locations(number, len(keys)))

    def commit(self) -> None:
        """Do nothing: rows in memory are found as soon as they are appended."""

    def gather(self, locations: np.ndarray) -> np.ndarray:
        """Return a copy of rows at `locations`, int64 (n,): float32 (n, d), NaN for `MISSING`."""
        out = np.empty((len(locations), self.d), np.float32)
        out[locations == MISSING] = np.nan
        numbers = locations >> 32
        for number in np.unique(numbers[locations != MISSING]).tolist():
            at = np.flatnonzero(numbers == number)
            rows, wanted = self._rows[number], locations[at] & 0xFFFFFFFF
            if len(at) == at[-1] - at[0] + 1 and rows.dtype == out.dtype:
                # Copies directly into `out`; "clip" skips the check of indices.
                np.take(rows, wanted, axis=0, out=out[at[0] : at[-1] + 1], mode="clip")
            else:
                out[at] = rows[wanted]
        return out

    def chunks(self, locations: np.ndarray, rows: int = 4096) -> Iterator[np.ndarray]:
        """Yield the rows at `locations`, in order, in arrays of at most `rows` rows."""
        for start in range(0, len(locations), rows):
            yield self.gather(locations[start : start + rows])


class StoredSpace(Space):
    """Embeddings of one recipe in an `EmbeddingStore`; see `EmbeddingStore.open_space`.

    Append within the space's context manager: entering it locks the store against deletion, and
    leaving it commits the appended rows, even after an error.
    """

    def __init__(self, place: LocalFolder, listing: SegmentIndex, identity: str, d: int) -> None:
        self.id = identity
        self.folder = place.path / "spaces" / identity
        self._place = place
        self._listing = listing
        self._segments: dict[int, Segment] = {}
        self._known: set[str] = set()
        self._n_damaged = 0
        self._version: tuple[int, ...] = (0,)
        self._last_seq = 0
        self._claims = Claims(place.path / "claims", identity)
        self._committed_at = time.monotonic()
        super().__init__(d)
        self._refresh()

    def begin_in_child(self) -> None:
        """Drop pending rows and claims, which belong to the parent process."""
        super().begin_in_child()
        self._pending: list[tuple[Sequence[bytes], np.ndarray]] = []
        self._claims.release_all()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._place.locked_shared())
            with self._place.optionally():
                if not os.path.lexists(self.folder):
                    raise StoreError(
                        f"The embedding store {str(self._place.path)!r} was cleared while this "
                        "extraction started; run it again."
                    )
            self._locked = stack.pop_all()
        self._committed_at = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.commit()
        finally:
            self._claims.release_all()
            self._claimed.clear()
            self._pending.clear()
            self._locked.close()

    def all_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return keys and locations (n,) of all committed rows, in order; StoreError for damage."""
        with self._lock:
            locations = self.find(keys := self._index.keys())
            while (locations == MISSING).any():  # excluding a segment has changed the index
                locations = self.find(keys := self._index.keys())
            if self._n_damaged:
                raise StoreError(
                    f"{self._n_damaged} segments of the embedding store {str(self._place.path)!r} are "
                    "damaged and nothing was copied; remove them with `featuretl cache verify "
                    "--repair` and run this again."
                )
            order = np.argsort(locations)
            return keys[order], locations[order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the location of each key, S32 (n,), as int64 (n,); `MISSING` if there is none.

        Finds committed rows, and rows that this object could not write. Each segment is checked
        before its first row is served; a warning names damaged segments, whose rows are missing.
        """
        with self._lock:
            while True:
                found = self._index.find(keys)
                numbers = np.unique(found[found != MISSING] >> 32)
                if self._open(numbers.tolist()):  # otherwise the index has changed
                    return found

    def claim(self, keys: list[bytes], force: bool = False) -> list[bool | None]:
        """Claim images to embed; with `force` even if another extraction has claimed them.

        Returns True for each image that the caller must embed, False if it is embedded or this
        extraction has claimed it already, None if another one has claimed it: try again later.
        """
        with self._lock:
            new = dict.fromkeys(key for key in keys if key not in self._claimed)
            self._claimed.update(new)
        # Without the lock: each call of the operating system lets other threads run.
        claimed = {key: self._claims.claim(key) or force for key in new}
        with self._lock:
            self._claimed.difference_update(key for key in new if not claimed[key])
            # After claiming: a previous owner commits its rows before it releases the claim.
            if any(claimed.values()) and self._place.keeps:
                self._refresh()
            embedded = self.find(keys_array(list(new))) != MISSING
            answers: dict[bytes, bool | None] = {}
            for key, is_embedded in zip(new, embedded.tolist(), strict=True):
                answers[key] = not is_embedded if claimed[key] else None
                if claimed[key] and is_embedded:
                    self.release(key)
            return [answers.pop(key, False) for key in keys]  # a repetition is claimed here already

    def release(self, key: bytes) -> None:
        """Release a claimed image, also for other extractions."""
        with self._lock:
            super().release(key)
            self._claims.release(key)

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Add embeddings (n, d) of claimed images; commits when a segment is full."""
        with self._lock:
            self._pending.append((keys, rows))  # one step, because an interrupt can come any time
            n = sum(len(keys) for keys, _ in self._pending)
            if (
                n >= SEGMENT_ROWS
                or n * rows[0].nbytes >= SEGMENT_BYTES
                or time.monotonic() - self._committed_at >= SEGMENT_SECONDS
            ):
                self.commit()

    def commit(self) -> None:
        """Write all appended rows durably, as one segment, so that they can be found.

        If the store cannot be written, raises UnusableStoreError, and earlier commits stay; with an
        optional store, the rows are then found in this object only.
        """
        with self._lock:
            self._committed_at = time.monotonic()
            keys = [key for part, _ in self._pending for key in part]
            if keys and self._place.keeps:
                with self._place.optionally():
                    self._write(keys)
            if not self._place.keeps:
                for part, rows in self._pending:
                    super().append(part, rows)
            self._pending.clear()
            for key in keys:
                self.release(key)

    def _write(self, keys: list[bytes]) -> None:
        try:
            rows = np.concatenate([rows for _, rows in self._pending])
            segment = write_segment(self.folder, uuid4().hex, self.id, keys_array(keys), rows)
        except (OSError, MemoryError) as error:
            lost = f", and {len(keys)} embeddings of this run are not cached"
            raise self._place.unusable("written", error, lost) from error
        self._listing.insert(segment)
        self._refresh()

    def _refresh(self) -> None:
        """Add the segments that all processes have committed since the last refresh."""
        with self._place.optionally():
            version = self._listing.version()
            if version == self._version:
                return
            if version[0] != self._version[0]:
                self._last_seq = 0  # a rebuilt index can have other numbers
            listed = self._listing.segments(self.id, after=self._last_seq)
            self._add([segment for _, segment in listed if segment.uuid not in self._known])
            self._last_seq = max([self._last_seq, *(seq for seq, _ in listed)])
            self._version = version

    def _add(self, segments: list[Segment]) -> None:
        added = []
        read = each(partial(read_keys_of, self.folder), segments)
        for segment, keys in zip(segments, read, strict=True):
            if isinstance(keys, np.ndarray):
                number = next(self._numbers)
                self._segments[number] = segment
                added.append((keys, _locations(number, len(keys))))
            else:
                self._known.add(segment.uuid)
                self._exclude(segment, keys)
        if added:  # together, because each addition can merge runs
            self._index.add(*map(np.concatenate, zip(*added, strict=True)))
        self._known.update(segment.uuid for segment in segments)

    def _open(self, numbers: list[int]) -> bool:
        """Check and map segments; return False if some were excluded and the index has changed."""
        new = [number for number in numbers if number not in self._rows]
        opened = each(partial(open_checked_rows, self.folder), [self._segments[i] for i in new])
        excluded = []
        for number, rows in zip(new, opened, strict=True):
            if isinstance(rows, np.ndarray):
                self._rows[number] = rows
            else:
                self._exclude(self._segments[number], rows)
                excluded.append(number)
        if excluded:
            self._refresh()  # another segment holds the rows of a compacted one
            self._index = self._index.where(lambda found: ~np.isin(found >> 32, excluded))
        return not excluded

    def _exclude(self, segment: Segment, error: Exception) -> None:
        """Exclude a segment; it is damaged only if the index still lists it."""
        listed = False
        with self._place.optionally():
            if not isinstance(error, DamagedFileError):
                raise error
            listed = self._listing.lists(segment)
        if listed:
            self._n_damaged += 1
            warnings.warn(
                f"A damaged segment of the embedding store is excluded: {self.folder.name[:12]}/"
                f"{error}. Its images are embedded again.",
                FeatureTLWarning,
                stacklevel=3,
            )


def _locations(number: int, n: int) -> np.ndarray:
    """Return the locations of a segment's n rows: its number in the upper 32 bits, then the row."""
    return np.arange(number << 32, (number << 32) + n)
