"""The engine of an extraction: plan, stream, commit.

Every image is read once, hashed and looked up; only what the store lacks is decoded and run. Each
thread takes a batch of images all the way, from the files through the network: with one thread of
PyTorch's own in each, no core waits for another.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl.exceptions import ItemError
from featuretl.extraction.batch_size import BatchSize
from featuretl.extraction.costs import Costs
from featuretl.extraction.source import Source
from featuretl.images.inputs import Decoder
from featuretl.store.keys import Recipe
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.space import Space

NO_KEY = b"\0" * 32

_LOOK_AHEAD = 256
_HASHED_IN_ONE_TASK = 32
_BATCHES_AHEAD = 1
_HASHES_AT_ONCE = 4096
_ATTEMPTS = 3
_CHANGING = "it changed while it was read; try again when it is settled"
_WAIT_SECONDS = 0.2
_PATIENCE_SECONDS = 150.0  # of an extraction that neither commits (every 60 s) nor ends
_REPORT_SECONDS = 0.1


@dataclass(frozen=True)
class Failure:
    """An image without an embedding.

    Attributes
    ----------
    index : int
        Its position in the input.
    name : str
        Its path, or its position and type; safe to print.
    message : str
        Why; safe to print.
    """

    index: int
    name: str
    message: str


@dataclass
class Statistics:
    """What an extraction did, or has done so far.

    Attributes
    ----------
    images : int
        How many there are.
    cached, embedded, failed : int
        How many were found in the store (or repeat another image of the input), were embedded now,
        or have no embedding. They add up to `images` at the end.
    seconds : float
    runtime : str
        What computed the embeddings: "torch", "onnx", ..; empty if nothing was computed.
    agreement : float or None
        Least cosine between embeddings of this precision and of float32, on four images; None where
        it is float32.
    costs : dict of str to float
        Seconds of processor time, over all threads, by stage: "read", "hash", "decode", "resize",
        "normalise", "forward" (pooling included), "commit" and "other" (while these ran); of this
        process only.
    """

    images: int
    cached: int = 0
    embedded: int = 0
    failed: int = 0
    seconds: float = 0.0
    runtime: str = ""
    agreement: float | None = None
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many images need nothing more."""
        return self.cached + self.embedded + self.failed

    @property
    def images_per_second(self) -> float:
        """Of all images, cached ones included."""
        return self.done / self.seconds if self.seconds else 0.0


Progress = Callable[[Statistics], None]


@dataclass
class _Image:
    """An image on its way to the network."""

    index: int
    key: bytes = NO_KEY
    state: os.stat_result | None = None
    taken: bool | None = False
    input: Any = None
    error: str | None = None


@dataclass(eq=False)
class _Batch:
    """Images that went through a thread, and the keys of those that were embedded.

    The seconds are those that embedding took, reading and decoding excluded.
    """

    images: list[_Image]
    keys: Sequence[bytes] = ()
    seconds: float = 0.0


@contextlib.contextmanager
def _threads(n: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of n threads; leaving, also by an error, cancels its tasks and waits for it."""
    pool = ThreadPoolExecutor(n, "featuretl")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Run:
    """One extraction: the state that planning and streaming share.

    After `run`, `space` holds every embedding that there is, under `keys`: ndarray (n,), S32, at
    `locations`: ndarray (n,), int64.
    """

    space: Space
    recipe: Recipe
    locations: np.ndarray

    def __init__(
        self,
        images: Sequence[Any],
        source: Source,
        batch_size: int | str,
        n_jobs: int,
        progress: Progress | None,
        decoder: Decoder,
    ) -> None:
        self.images = images
        self.statistics = Statistics(len(images))
        self.keys = keys_array([NO_KEY] * len(images)).copy()
        self._source, self._encoder = source, source.encoder
        self._batch_size = BatchSize(batch_size)
        self._n_jobs = n_jobs
        self._progress = progress
        self._decoder = decoder
        self._started = self._reported = time.monotonic()
        self._costs = Costs()
        self._stage, self.statistics.costs = self._costs.stage, self._costs.seconds
        self._appending = threading.Lock()
        self._errors: dict[int, str] = {}
        self._key_errors: dict[bytes, str] = {}
        self._hashed: list[tuple[str, os.stat_result, bytes]] = []

    def run(self) -> list[Failure]:
        """Embed what has no embedding yet; return the images that cannot have one, in order."""
        try:
            with _threads(self._n_jobs) as pool:
                remembered = self._source.remembered()
                if remembered is not None:
                    self.space, self.recipe = remembered
                    self._plan(pool)
            if remembered is None or self._missing():
                with self._source.held():
                    self.space, self.recipe = self._source.open()
                    self._embed_all()
        finally:
            self._remember_hashes()
            self._report(always=True)  # an interrupt, too, ends with the true counts
        return self._finish()

    def _plan(self, pool: ThreadPoolExecutor) -> None:
        """Find out the keys, without the backbone, until the first image that will need it."""
        self._recall_hashes()
        unknown = np.flatnonzero(self.keys == NO_KEY)
        for start in range(0, len(unknown), _LOOK_AHEAD):
            chunk = unknown[start : start + _LOOK_AHEAD]
            parts = np.array_split(chunk, -(-len(chunk) // _HASHED_IN_ONE_TASK))
            for prepared in itertools.chain.from_iterable(pool.map(self._hash, parts)):
                self._note(prepared)
            found = self.space.find(self.keys[chunk]) != MISSING
            if not all(ok or self._error(i) for i, ok in zip(chunk.tolist(), found, strict=True)):
                break

    def _embed_all(self) -> None:
        from featuretl.runtimes.threads import one_thread_each

        self._batch_size.most = self._encoder.largest_batch
        n_threads = self._n_jobs
        with self.space, _threads(n_threads) as pool, one_thread_each(pool, n_threads):
            n_images = len(self._missing())
            choice = self._encoder.choose_runtime(pool, n_threads, n_images)
            self.statistics.runtime, self.statistics.agreement = choice
            with self._costs.rest("other"):
                for _ in range(_ATTEMPTS):
                    todo = self._missing()
                    if not todo:
                        break
                    self._count_cached(len(todo))
                    self._embed_or_wait(pool, todo)
                    pool.submit(self._commit).result()

    def _embed_or_wait(self, pool: ThreadPoolExecutor, todo: list[int]) -> None:
        """Embed `todo`; what another extraction has under way is awaited, within reason."""
        waited = 0.0
        while todo:
            left = self._embed(pool, todo, force=waited > _PATIENCE_SECONDS)
            if left:
                pool.submit(self._commit).result()  # never wait while others wait for these
                waited = waited + _WAIT_SECONDS if len(left) == len(todo) else 0.0
                time.sleep(_WAIT_SECONDS)
            todo = left

    def _embed(self, pool: ThreadPoolExecutor, todo: list[int], force: bool) -> list[int]:
        """Embed what is not under way elsewhere; return what is."""
        left: list[int] = []
        for batch in self._batches(pool, todo, force):
            for prepared in batch.images:
                self._note(prepared)
                if prepared.taken is None:
                    left.append(prepared.index)
                elif not prepared.taken and prepared.error is None:
                    self.statistics.cached += 1
            self._report()
        return left

    def _batches(self, pool: ThreadPoolExecutor, todo: list[int], force: bool) -> Iterator[_Batch]:
        """Yield embedded batches in order; a few more of them than threads are under way."""
        fair = -(-len(todo) // self._n_jobs)
        window: deque[Future[_Batch]] = deque()
        start = 0
        while start < len(todo) or window:
            if start < len(todo) and len(window) <= self._n_jobs + _BATCHES_AHEAD:
                size = min(self._batch_size.now, fair)
                window.append(pool.submit(self._work, todo[start : start + size], force))
                start += size
            else:
                batch = window.popleft().result()
                self._batch_size.learn(len(batch.keys), batch.seconds)
                yield batch

    def _work(self, indices: list[int], force: bool) -> _Batch:
        """Read, decode, preprocess, embed and append some images, all in one thread."""
        images = [self._prepare(index, force) for index in indices]
        ready = [image for image in images if image.input is not None]
        if not ready:
            return _Batch(images)
        began = time.perf_counter()
        rows = self._encoder.embed([image.input for image in ready], self._stage)
        seconds = time.perf_counter() - began
        for image in ready:
            image.input = None
        keys = [image.key for image in ready]
        with self._appending, self._stage("commit"):
            self.space.append(keys, rows)
            self.statistics.embedded += len(keys)
        return _Batch(images, keys, seconds)

    def _commit(self) -> None:
        """Commit in a thread of the pool: Ctrl-C, which interrupts the main thread, waits for it."""
        with self._stage("commit"):
            self.space.commit()

    def _prepare(self, index: int, force: bool) -> _Image:
        """Read and, if it is to be embedded here and now, decode and preprocess one image."""
        known = bytes(self.keys[index]).ljust(32, b"\0")
        prepared = _Image(index, known)
        if known != NO_KEY:
            prepared.taken = self.space.claim(known, force)
            if not prepared.taken:
                return prepared
        try:
            content = self._encoder.read(self.images[index], self._stage)
        except ItemError as error:
            self.space.release(known)
            return _Image(index, error=printable(error))
        if content.key != known:
            self.space.release(known)
            prepared.key, prepared.state = content.key, content.state
            prepared.taken = self.space.claim(content.key, force)
        try:
            if prepared.taken:
                prepared.input = self._encoder.prepare(content, self._decoder, self._stage)
        except ItemError as error:
            self.space.release(prepared.key)
            prepared.error = printable(error)
        return prepared

    def _hash(self, indices: np.ndarray) -> list[_Image]:
        """Read some images and find out their keys."""
        found = []
        for index in indices.tolist():
            try:
                content = self._encoder.read(self.images[index], self._stage)
                found.append(_Image(index, content.key, content.state))
            except ItemError as error:
                found.append(_Image(index, error=printable(error)))
        return found

    def _note(self, prepared: _Image) -> None:
        self.keys[prepared.index] = prepared.key
        if prepared.state is not None:
            path = os.fspath(self.images[prepared.index])
            self._hashed.append((path, prepared.state, prepared.key))
            if len(self._hashed) >= _HASHES_AT_ONCE:
                self._remember_hashes()
        if prepared.error is not None:
            self.statistics.failed += 1
            if prepared.key == NO_KEY:
                self._errors[prepared.index] = prepared.error
            else:  # every image of this content fails
                self._key_errors[prepared.key] = prepared.error

    def _missing(self) -> list[int]:
        """Return the indices of the images that have neither an embedding nor an error."""
        missing = np.flatnonzero(self.space.find(self.keys) == MISSING).tolist()
        if not self._errors and not self._key_errors:
            return missing
        return [index for index in missing if self._error(index) is None]

    def _error(self, index: int) -> str | None:
        key = bytes(self.keys[index]).ljust(32, b"\0")
        return self._errors.get(index) or self._key_errors.get(key)

    def _recall_hashes(self) -> None:
        paths = [
            (index, os.fspath(image))
            for index, image in enumerate(self.images)
            if self._encoder.is_file(image)
        ]
        if self._source.store is not None:
            digests = self._source.store.memo.digests([path for _, path in paths])
            for (index, _), digest in zip(paths, digests, strict=True):
                if digest is not None:
                    self.keys[index] = digest

    def _remember_hashes(self) -> None:
        if self._source.store is not None and self._hashed:
            self._source.store.memo.remember_digests(self._hashed)
        self._hashed = []

    def _finish(self) -> list[Failure]:
        self.locations = self.space.find(self.keys)
        failures = [
            Failure(
                index,
                self._encoder.name_of(self.images[index], index),
                self._error(index) or _CHANGING,
            )
            for index in np.flatnonzero(self.locations == MISSING).tolist()
        ]
        self.statistics.failed = len(failures)
        done = self.statistics.embedded + self.statistics.failed
        self.statistics.cached = len(self.images) - done
        self._report(always=True)
        return failures

    def _count_cached(self, todo: int) -> None:
        done = self.statistics.embedded + self.statistics.failed
        self.statistics.cached = len(self.images) - todo - done
        self._report()

    def _report(self, always: bool = False) -> None:
        now = time.monotonic()
        self.statistics.seconds = now - self._started
        if self._progress and (always or now - self._reported > _REPORT_SECONDS):
            self._reported = now
            self._progress(self.statistics)
