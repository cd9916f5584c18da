"""A space: all embeddings of one recipe, by image, on disk in a store or in memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self
from uuid import uuid4

import numpy as np

from featuretl._core.forks import begin_again_after_fork
from featuretl.exceptions import FeatureTLWarning, StoreError, UnusableStoreError
from featuretl.store.claims import Claims
from featuretl.store.format import (
    DamagedFileError,
    Segment,
    open_checked_rows,
    read_keys_of,
    write_segment,
)
from featuretl.store.index import SegmentIndex
from featuretl.store.local import LocalFolder
from featuretl.store.lookup import MISSING, KeyIndex, keys_array
from featuretl.store.memory import MemorySpace

SEGMENT_ROWS = 16_384
SEGMENT_BYTES = 128 * 2**20
SEGMENT_SECONDS = 60.0

_CHECKED_AT_ONCE = 4
_UNKEPT = 2**30  # numbers from here on are of segments in memory


class StoredSpace:
    """Embeddings of one recipe in an `EmbeddingStore`; see `EmbeddingStore.open_space`.

    Appending needs the space as a context manager: entering locks the store against deletion, and
    leaving, also by an error, commits the appended rows. Any thread may call its methods.
    """

    def __init__(self, place: LocalFolder, listing: SegmentIndex, identity: str, d: int) -> None:
        self.d = d
        self.id = identity
        self.folder = place.path / "spaces" / identity
        self._place = place
        self._listing = listing
        self._index = KeyIndex()
        self._segments: list[Segment] = []
        self._known: set[str] = set()
        self._rows: dict[int, np.ndarray] = {}
        self._refused: dict[int, bool] = {}  # True for damaged segments, False for freed ones
        self._version: tuple[int, ...] = (0,)
        self._last_seq = 0
        self._claims = Claims(place.path / "claims", identity)
        self._unkept = MemorySpace(d)
        self._committed_at = time.monotonic()
        self.begin_in_child()
        begin_again_after_fork(self)
        self._refresh()

    def begin_in_child(self) -> None:
        """Leave pending rows and claims to the parent."""
        self._lock = threading.RLock()
        self._claimed: set[bytes] = set()
        self._pending: list[tuple[Sequence[bytes], np.ndarray]] = []
        self._claims.release_all()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._place.locked_shared())
            with self._place.optionally():
                if not os.path.lexists(self.folder):
                    raise StoreError(
                        f"The embedding store {str(self._place.path)!r} was cleared while this "
                        "extraction began; run it again."
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
        """Return the keys (n,), S32, of all committed rows and their locations, in order of commit.

        Raises StoreError if a segment is damaged, so that no copy lacks rows.
        """
        with self._lock:
            locations = self.find(keys := self._index.keys())
            while (locations == MISSING).any():  # a segment was refused: its keys are others'
                locations = self.find(keys := self._index.keys())
            if any(self._refused.values()):
                raise StoreError(
                    f"{sum(self._refused.values())} segments of the embedding store {str(self._place.path)!r} are "
                    "damaged, so nothing is copied; `featuretl cache verify --repair` frees them, "
                    "then run this again."
                )
            order = np.argsort(locations)
            return keys[order], locations[order]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return where the embedding of each key (n,), S32, lies: int64 (n,), or `MISSING`.

        Only committed rows are found, and those of this object that could not be written. A segment
        is checked before its rows are served for the first time; the rows of a damaged one are
        missing, with a warning.
        """
        with self._lock:
            while True:
                found = self._index.find(keys)
                numbers = np.unique(found[found != MISSING] >> 32)
                # Opening may refuse a segment and so change the index: look again.
                if self._open(numbers.tolist()):
                    break
            unkept = self._unkept.find(keys)
            only_here = (found == MISSING) & (unkept != MISSING)
            return np.where(only_here, unkept + (_UNKEPT << 32), found)

    def claim(self, key: bytes, force: bool = False) -> bool | None:
        """Claim an image to embed; with `force` even if another extraction has claimed it.

        Returns True if the caller has to embed it; False if its embedding is there or under way in
        this extraction; None if another extraction has claimed it: try again later.
        """
        with self._lock:
            if key in self._claimed:
                return False
            if not self._claims.claim(key) and not force:
                return None
            # Only now: the previous holder of the claim has committed, and then released it.
            if self._place.keeps:
                self._refresh()
            if self.find(keys_array([key]))[0] != MISSING:
                self._claims.release(key)
                return False
            self._claimed.add(key)
            return True

    def release(self, key: bytes) -> None:
        """Release a claimed image that cannot be embedded; others may try."""
        with self._lock:
            self._claimed.discard(key)
            self._claims.release(key)

    def append(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Add embeddings (n, d) of claimed images; commits when a segment is full."""
        with self._lock:
            self._pending.append((keys, rows))  # one step: an interrupt may come between two lines
            n = sum(len(keys) for keys, _ in self._pending)
            if (
                n >= SEGMENT_ROWS
                or n * rows[0].nbytes >= SEGMENT_BYTES
                or time.monotonic() - self._committed_at >= SEGMENT_SECONDS
            ):
                self.commit()

    def commit(self) -> None:
        """Make everything appended so far durable, as one segment; then it is found.

        Raises UnusableStoreError if it cannot be written, without loss of earlier commits; rows for
        an optional store are then found in this object only.
        """
        with self._lock:
            self._committed_at = time.monotonic()
            keys = [key for part, _ in self._pending for key in part]
            if keys and self._place.keeps:
                with self._place.optionally():
                    self._write(keys)
            if not self._place.keeps:
                for part, rows in self._pending:
                    self._unkept.append(part, rows)
            self._pending.clear()
            for key in keys:
                self.release(key)

    def segment_rows(self, number: int) -> np.ndarray:
        """Return a checked segment's rows (n, d), read-only."""
        if number >= _UNKEPT:
            return self._unkept.segment_rows(number - _UNKEPT)
        return self._rows[number]

    def _write(self, keys: list[bytes]) -> None:
        try:
            rows = np.concatenate([rows for _, rows in self._pending])
            segment = write_segment(self.folder, uuid4().hex, self.id, keys_array(keys), rows)
        except (OSError, MemoryError) as error:
            lost = f", and {len(keys)} embeddings of this run are not kept"
            raise self._place.unwritable(error, lost) from error
        self._listing.insert(segment)
        self._refresh()

    def _refresh(self) -> None:
        """Add the segments that any process has committed since the last refresh."""
        with self._place.optionally():
            version = self._listing.version()
            if version == self._version:
                return
            if version[0] != self._version[0]:
                self._last_seq = 0  # the index may have been rebuilt, and numbered otherwise
            for seq, segment in self._listing.segments(self.id, after=self._last_seq):
                if segment.uuid not in self._known:
                    self._add(segment)
                self._last_seq = seq
            self._version = version

    def _add(self, segment: Segment) -> None:
        number = len(self._segments)
        self._segments.append(segment)
        self._known.add(segment.uuid)
        try:
            keys = read_keys_of(self.folder, segment)
            self._index.add(keys, _locations(number, len(keys)))
        except DamagedFileError as error:
            self._refuse(number, error)

    def _open(self, numbers: list[int]) -> bool:
        """Check and map the segments that are not yet; return whether all of them are good."""
        new = [number for number in numbers if number not in self._rows]
        bad = False
        for number, rows in zip(new, self._checked(new), strict=True):
            if isinstance(rows, np.ndarray):
                self._rows[number] = rows
            else:
                bad = True
                self._refuse(number, rows)
        if bad:
            self._refresh()  # the rows of a compacted segment lie in another one
            self._index = self._good_keys()
        return not bad

    def _good_keys(self) -> KeyIndex:
        refused = list(self._refused)
        index = self._index.where(lambda locations: ~np.isin(locations >> 32, refused))
        for number, segment in enumerate(self._segments):  # a key may be in another one, too
            if number not in self._refused:
                try:
                    index.add(read_keys_of(self.folder, segment), _locations(number, segment.n))
                except (DamagedFileError, UnusableStoreError) as error:
                    if number not in self._rows:  # mapped rows stay, even if their file is deleted
                        self._refuse(number, error)
        return index

    def _checked(self, numbers: list[int]) -> list[np.ndarray | Exception]:
        """Return the rows of segments, or their errors."""

        def check(number: int) -> np.ndarray | Exception:
            try:
                return open_checked_rows(self.folder, self._segments[number])
            except (DamagedFileError, UnusableStoreError) as error:
                return error

        if len(numbers) < 2:
            return [check(number) for number in numbers]
        with ThreadPoolExecutor(min(len(numbers), _CHECKED_AT_ONCE)) as pool:
            return list(pool.map(check, numbers))

    def _refuse(self, number: int, error: Exception) -> None:
        """Exclude a segment; it is damaged only if the index still lists it."""
        listed = False
        with self._place.optionally():
            if isinstance(error, UnusableStoreError):
                raise error
            listed = self._listing.lists(self._segments[number])
        self._refused[number] = listed
        if listed:
            warnings.warn(
                "A damaged segment of the embedding store is not used, and its images are embedded "
                f"again: {self.folder.name[:12]}/{error}.",
                FeatureTLWarning,
                stacklevel=3,
            )


def _locations(number: int, n: int) -> np.ndarray:
    return np.arange(number << 32, (number << 32) + n)


Space = MemorySpace | StoredSpace


def gather(space: Space, locations: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Copy the rows at `locations` (n,), int64, into one array (n, d), float32, `out` if given.

    `MISSING` gives a row of NaN.
    """
    if out is None:
        out = np.empty((len(locations), space.d), np.float32)
    out[locations == MISSING] = np.nan
    numbers = locations >> 32
    for number in np.unique(numbers[locations != MISSING]):
        at = np.flatnonzero(numbers == number)
        rows, wanted = space.segment_rows(int(number)), locations[at] & 0xFFFFFFFF
        if len(at) == at[-1] - at[0] + 1 and rows.dtype == out.dtype:
            # Without an intermediate copy; "clip" skips the check of indices.
            np.take(rows, wanted, axis=0, out=out[at[0] : at[-1] + 1], mode="clip")
        else:
            out[at] = rows[wanted]
    return out


def gather_chunks(space: Space, locations: np.ndarray, rows: int = 4096) -> Iterator[np.ndarray]:
    """Yield the rows at `locations` in order, in arrays of at most `rows` rows."""
    for start in range(0, len(locations), rows):
        yield gather(space, locations[start : start + rows])
