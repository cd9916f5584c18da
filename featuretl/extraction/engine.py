"""The engine of an extraction.

It reads and hashes every image once; only images that the store lacks are decoded and embedded.
On the CPU each thread takes a batch all the way from the files through the network, with PyTorch
limited to one thread in each, so that no core waits for another. Other devices compute whole
batches, which the threads prepare together (see `featuretl.extraction.pipeline`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl.exceptions import ItemError
from featuretl.extraction.batch_size import BatchSize
from featuretl.extraction.costs import Costs
from featuretl.extraction.pipeline import Pipeline, threads
from featuretl.extraction.preparers import Prepared, Preparers
from featuretl.extraction.source import Source
from featuretl.extraction.statistics import Failure, Progress, Statistics
from featuretl.images.crops import by_file
from featuretl.images.decode import decode
from featuretl.images.inputs import Decoder, key_of
from featuretl.store.keys import Recipe
from featuretl.store.lookup import MISSING, keys_array, keys_list
from featuretl.store.space import Space

NO_KEY = b"\0" * 32

_LOOK_AHEAD = 256
_HASHES_PER_TASK = 32
_BATCHES_AHEAD = 1
_HASHES_PER_WRITE = 4096
_ATTEMPTS = 3
_CHANGING = "it changed while it was read; try again when nothing writes to it"
_WAIT_SECONDS = 0.2
_PATIENCE_SECONDS = 150.0  # another extraction commits at least every 60 s
_REPORT_SECONDS = 0.1
# Pillow resizes more slowly than PyTorch does, by some 13 ms for each MB of JPEG files.
_FEW_IMAGES = 1_000
_FEW_BYTES = 2**28
_SIZE_IN_MEMORY = 2**20  # assumed for an image that is no file
_IMAGES_FOR_CHILDREN = 2_000  # child processes take seconds to start


@dataclass
class _Image:
    """An image on its way to the network."""

    index: int
    key: bytes = NO_KEY
    state: os.stat_result | None = None
    digest: bytes = NO_KEY  # of the file with this state
    claimed: bool | None = False  # None: another extraction is embedding it
    input: Any = None
    error: str | None = None

    def take(self, content: Any) -> None:
        """Take the key and the file's state from the content of the image, or its error."""
        if isinstance(content, ItemError):
            self.key, self.error = NO_KEY, printable(content)
        elif content.key != self.key:
            self.key, self.state, self.digest = content.key, content.state, content.digest


_Batches = Generator[list[_Image], None, None]


@dataclass(eq=False, repr=False)
class Run:
    """One extraction.

    After `run`, `space` holds the embeddings by `keys`, S32 (n,), at `locations`, int64 (n,).
    """

    images: Sequence[Any]
    source: Source
    batch_size: int | str
    n_jobs: int
    progress: Progress | None
    decoder: Decoder
    space: Space = field(init=False)
    recipe: Recipe = field(init=False)
    locations: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.statistics = Statistics(len(self.images))
        self.keys = keys_array([NO_KEY] * len(self.images)).copy()
        self._encoder = self.source.encoder
        self._batch_size = BatchSize(self.batch_size)
        self._started = self._reported = time.monotonic()
        self._costs = Costs()
        self._preparers = Preparers(0, None, self._costs)
        self._stage, self.statistics.costs = self._costs.stage, self._costs.seconds
        self._appending = threading.Lock()
        self._errors: dict[int, str] = {}
        self._key_errors: dict[bytes, str] = {}
        self._hashed: list[tuple[str, os.stat_result, bytes]] = []

    def run(self) -> list[Failure]:
        """Embed the images that have no embedding yet; return the failures in order."""
        try:
            with threads(self.n_jobs) as pool:
                remembered = self.source.remembered()
                if remembered is not None:
                    self.space, self.recipe = remembered
                    self._plan(pool)
            missing = self._missing() if remembered else range(len(self.images))
            if missing or remembered is None:
                with self.source.held():
                    self.space, self.recipe = self.source.open(self._are_few(missing))
                    self._embed_all()
        finally:
            self._remember_hashes()
            self._report(always=True)  # the counts are exact after an interrupt, too
        return self._finish()

    def _plan(self, pool: ThreadPoolExecutor) -> None:
        """Compute keys, without the backbone, up to the first images that need it."""
        self._recall_hashes()
        unknown = np.flatnonzero(self.keys == NO_KEY)
        for start in range(0, len(unknown), _LOOK_AHEAD):
            chunk = unknown[start : start + _LOOK_AHEAD]
            parts = np.array_split(chunk, -(-len(chunk) // _HASHES_PER_TASK))
            for prepared in itertools.chain.from_iterable(pool.map(self._hash, parts)):
                self._record(prepared)
            found = self.space.find(self.keys[chunk]) != MISSING
            if not all(ok or self._error(i) for i, ok in zip(chunk.tolist(), found, strict=True)):
                break

    def _are_few(self, indices: Sequence[int]) -> bool:
        """Return whether embedding these images takes less time than importing PyTorch."""
        if len(indices) >= _FEW_IMAGES:
            return False
        size = 0
        for index in indices:
            path = self._encoder.file_of(self.images[index])
            with contextlib.suppress(OSError, ValueError):  # an unreadable file is a failure
                size += _SIZE_IN_MEMORY if path is None else Path(path).stat().st_size
        return size < _FEW_BYTES

    def _embed_all(self) -> None:
        from featuretl.runtimes.threads import one_thread_each

        # Each batch size costs a fast device seconds for the choice of its kernels.
        grows = not self._encoder.pipelined
        self._batch_size.limit(self._encoder.largest_batch, grows=grows)
        n_threads = self.n_jobs
        with self.space, threads(n_threads) as pool, one_thread_each(pool, n_threads):
            n_images = len(self._missing())
            choice = self._encoder.choose_runtime(pool, n_threads, n_images)
            self.statistics.runtime, self.statistics.agreement = choice
            with self._costs.rest("other"), self._children(n_images) as self._preparers:
                for _ in range(_ATTEMPTS):
                    todo = by_file(self._missing(), self.images)
                    if not todo:
                        break
                    self._count_cached(len(todo))
                    self._report()
                    self._embed_or_wait(pool, todo)
                    pool.submit(self._commit).result()

    def _children(self, n_images: int) -> Preparers:
        """Return child processes that prepare images if that pays; otherwise none."""
        pays = n_images >= _IMAGES_FOR_CHILDREN and self.n_jobs > 1 and self.decoder is decode
        n = self.n_jobs if pays and self._encoder.pipelined else 0
        return Preparers(n, self._encoder.preparation if n else None, self._costs)

    def _embed_or_wait(self, pool: ThreadPoolExecutor, todo: list[int]) -> None:
        """Embed `todo`; wait, up to a limit, for images that another extraction is embedding."""
        waited = 0.0
        while todo:
            left = self._embed(pool, todo, force=waited > _PATIENCE_SECONDS)
            if left:
                pool.submit(self._commit).result()  # another extraction may wait for these rows
                waited = waited + _WAIT_SECONDS if len(left) == len(todo) else 0.0
                time.sleep(_WAIT_SECONDS)
            todo = left

    def _embed(self, pool: ThreadPoolExecutor, todo: list[int], force: bool) -> list[int]:
        """Embed images; return the indices of those that another extraction is embedding."""
        left: list[int] = []
        strategy = self._pipelined if self._encoder.pipelined else self._by_thread
        with contextlib.closing(strategy(pool, todo, force)) as batches:
            for images in batches:
                for prepared in images:
                    self._record(prepared)
                    if prepared.claimed is None:
                        left.append(prepared.index)
                    elif not prepared.claimed and prepared.error is None:
                        self.statistics.cached += 1
                self._report()
        return left

    def _pipelined(self, pool: ThreadPoolExecutor, todo: list[int], force: bool) -> _Batches:
        """Yield prepared images in order; they are embedded at the latest when this ends."""
        workers, batch_size = self._encoder.pipelined, self._batch_size
        prepare = partial(self._prepare, force=force)
        pipeline = Pipeline(workers, prepare, self._append, batch_size, self._stage)
        return pipeline.batches(pool, self.n_jobs, todo)

    def _by_thread(self, pool: ThreadPoolExecutor, todo: list[int], force: bool) -> _Batches:
        """Yield embedded batches in order, keeping a few more batches than threads in flight."""
        fair = -(-len(todo) // self.n_jobs)
        window: deque[Future[tuple[list[_Image], int, float]]] = deque()
        start = 0
        while start < len(todo) or window:
            if start < len(todo) and len(window) <= self.n_jobs + _BATCHES_AHEAD:
                size = min(self._batch_size.current, fair)
                window.append(pool.submit(self._work, todo[start : start + size], force))
                start += size
            else:
                images, n_embedded, seconds = window.popleft().result()
                self._batch_size.record(n_embedded, seconds)
                yield images

    def _work(self, indices: list[int], force: bool) -> tuple[list[_Image], int, float]:
        """Take a batch of images from the files through the network in this thread.

        Returns the images, the number of those embedded, and the seconds of the forward pass.
        """
        images = self._prepare(indices, force)
        ready = [image for image in images if image.input is not None]
        if not ready:
            return images, 0, 0.0
        began = time.perf_counter()
        rows = self._encoder.embed([image.input for image in ready], self._stage)
        seconds = time.perf_counter() - began
        for image in ready:
            image.input = None
        self._append(ready, rows)
        return images, len(ready), seconds

    def _append(self, images: list[_Image], rows: np.ndarray) -> None:
        """Append and count embeddings, in a thread that no signal interrupts."""
        with self._appending, self._stage("commit"):
            self.space.append([image.key for image in images], rows)
            self.statistics.embedded += len(images)

    def _commit(self) -> None:
        """Commit, in a thread of the pool, which Ctrl-C in the main thread does not interrupt."""
        with self._stage("commit"):
            self.space.commit()

    def _prepare(self, indices: list[int], force: bool) -> list[_Image]:
        """Read images; decode and preprocess those that this extraction claims."""
        images = list(map(_Image, indices, keys_list(self.keys[indices])))
        self._claim([image for image in images if image.key != NO_KEY], force)
        wanted = [image for image in images if image.claimed or image.key == NO_KEY]
        prepared = self._preparers([self.images[image.index] for image in wanted])
        if prepared is not None:
            self._accept(wanted, prepared, force)
        else:
            for image in wanted:
                self._accept([image], [(self._read(image.index), None)], force)
        return images

    def _claim(self, images: list[_Image], force: bool) -> None:
        claims = self.space.claim([image.key for image in images], force) if images else []
        for image, claimed in zip(images, claims, strict=True):
            image.claimed = claimed

    def _accept(self, images: list[_Image], prepared: list[Prepared], force: bool) -> None:
        """Claim images that were read; decode and preprocess those that no child prepared."""
        new = []
        for image, (content, _) in zip(images, prepared, strict=True):
            before = image.key
            image.take(content)
            if image.key != before:
                if image.claimed:  # the file has changed
                    self.space.release(before)
                image.claimed = False
                if image.error is None:
                    new.append(image)
        self._claim(new, force)
        for image, (content, tensor) in zip(images, prepared, strict=True):
            if not image.claimed:
                continue
            try:
                if isinstance(tensor, ItemError):
                    raise tensor
                if tensor is None:
                    tensor = self._encoder.prepare(content, self.decoder, self._stage)
                image.input = tensor
            except ItemError as error:
                self.space.release(image.key)
                image.error = printable(error)

    def _read(self, index: int) -> Any:
        """Return the content of an image, or its error."""
        try:
            return self._encoder.read(self.images[index], self._stage)
        except ItemError as error:
            return error

    def _hash(self, indices: np.ndarray) -> list[_Image]:
        """Read images and compute their keys."""
        images = [_Image(index) for index in indices.tolist()]
        for image in images:
            image.take(self._read(image.index))
        return images

    def _record(self, prepared: _Image) -> None:
        self.keys[prepared.index] = prepared.key
        if prepared.state is not None:
            path = self._encoder.file_of(self.images[prepared.index]) or ""
            self._hashed.append((path, prepared.state, prepared.digest))
            if len(self._hashed) >= _HASHES_PER_WRITE:
                self._remember_hashes()
        if prepared.error is not None:
            self.statistics.failed += 1
            if prepared.key == NO_KEY:
                self._errors[prepared.index] = prepared.error
            else:  # every image with this content fails
                self._key_errors[prepared.key] = prepared.error

    def _missing(self) -> list[int]:
        """Return the indices of the images that have neither an embedding nor an error."""
        missing = np.flatnonzero(self.space.find(self.keys) == MISSING).tolist()
        if not self._errors and not self._key_errors:
            return missing
        return [index for index in missing if self._error(index) is None]

    def _error(self, index: int) -> str | None:
        (key,) = keys_list(self.keys[index : index + 1])
        return self._errors.get(index) or self._key_errors.get(key)

    def _recall_hashes(self) -> None:
        if self.source.store is None:
            return
        paths = [self._encoder.file_of(image) for image in self.images]
        files = [i for i, path in enumerate(paths) if path is not None]
        digests = self.source.store.memo.digests([path for path in paths if path is not None])
        bad_crop = contextlib.suppress(ItemError)  # it fails when it is read
        for index, digest in zip(files, digests, strict=True):
            if digest is not None:
                with bad_crop:
                    self.keys[index] = key_of(self.images[index], digest)

    def _remember_hashes(self) -> None:
        if self.source.store is not None and self._hashed:
            self.source.store.memo.remember_digests(self._hashed)
        self._hashed = []

    def _finish(self) -> list[Failure]:
        self.locations = self.space.find(self.keys)
        failures = []
        for index in np.flatnonzero(self.locations == MISSING).tolist():
            name = self._encoder.name_of(self.images[index], index)
            failures.append(Failure(index, name, self._error(index) or _CHANGING))
        self.statistics.failed = len(failures)
        self._count_cached(0)
        self._report(always=True)
        return failures

    def _count_cached(self, todo: int) -> None:
        done = self.statistics.embedded + self.statistics.failed
        self.statistics.cached = len(self.images) - todo - done

    def _report(self, always: bool = False) -> None:
        now = time.monotonic()
        self.statistics.seconds = now - self._started
        if self.progress and (always or now - self._reported > _REPORT_SECONDS):
            self._reported = now
            self.progress(self.statistics)
