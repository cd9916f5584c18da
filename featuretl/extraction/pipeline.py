"""The pipeline from many decoding threads to fast devices, on each of which one thread computes.

While a batch is computed, the next one is copied to the device and a third one is filled: there
are at most three batches for each device, whose memory is used again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featuretl.extraction.batch_size import BatchSize

_BATCHES_PER_DEVICE = 3
_IMAGES_PER_TASK = 16
_MOST_STAGED_BYTES = 2**28  # of one batch, which is smaller than `batch_size` if images are large


@contextlib.contextmanager
def threads(n: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of n threads; on exit, also by an error, cancel its tasks and wait for it."""
    pool = ThreadPoolExecutor(n, "featuretl")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


@dataclass(eq=False)
class _Batch:
    """A batch of up to `size` images; `memory` holds their inputs."""

    memory: Any
    size: int
    images: list[Any] = field(default_factory=list)
    in_copy: int = 0  # threads that are copying to `memory` now
    began: float = 0.0
    rows: Any = None  # a function that waits for the embeddings

    @property
    def inputs(self) -> Any:
        """The inputs, and zeros up to a power of two: each new size costs a device seconds."""
        n = len(self.images)
        padded = self.memory[: _power_of_two(n)]
        padded[n:] = 0
        return padded


@dataclass(eq=False, repr=False)
class Pipeline:
    """Embeds prepared images on `workers`, one for each device.

    `prepare` maps indices to images, with an `input` if it is to be embedded, which the pipeline
    takes; `append` adds the embeddings of images, and `stage` measures processor time.
    """

    workers: Sequence[Any]
    prepare: Callable[[list[int]], list[Any]]
    append: Callable[[list[Any], np.ndarray], Any]
    batch_size: BatchSize
    stage: Callable[[str], Any]

    def __post_init__(self) -> None:
        # The main thread never locks this: an interrupt could leave it locked.
        self._changed = threading.Condition()
        self._free: list[Any] = [None] * (_BATCHES_PER_DEVICE * len(self.workers))
        self._open: _Batch | None = None  # the batch being filled
        self._full: deque[_Batch] = deque()
        self._ended = self._stopped = False

    def batches(
        self, pool: ThreadPoolExecutor, n_threads: int, todo: list[int]
    ) -> Generator[list[Any], None, None]:
        """Yield the images at the indices `todo` in order, a few at a time, once prepared.

        When the iterator ends, they are embedded and appended. If it is closed or fails, batches on
        a device are still appended, the others are dropped, and the threads on devices end.
        """
        fair = -(-len(todo) // len(self.workers))
        window: deque[Future[list[Any]]] = deque()
        with threads(len(self.workers) + 1) as devices:
            try:
                computing = [devices.submit(self._compute, worker) for worker in self.workers]
                for start in range(0, len(todo), _IMAGES_PER_TASK):
                    if self._stopped:  # because a device failed
                        break
                    if len(window) > 2 * n_threads:
                        yield window.popleft().result()
                    indices = todo[start : start + _IMAGES_PER_TASK]
                    window.append(pool.submit(self._fill, indices, fair))
                while window:
                    yield window.popleft().result()
                devices.submit(self._end, stop=False).result()
                for device in computing:
                    device.result()
            finally:
                devices.submit(self._end, stop=True).result()

    def _fill(self, indices: list[int], fair: int) -> list[Any]:
        """Prepare images and copy their inputs to batches."""
        images = self.prepare(indices)
        ready = [image for image in images if image.input is not None]
        while ready and (taken := self._put(ready, fair)):
            ready = ready[taken:]
        return images

    def _put(self, images: list[Any], fair: int) -> int:
        """Copy the inputs of the first images to the open batch; return how many, 0 if stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._open or self._free)
            if self._stopped:
                return 0
            batch = self._open = self._open or self._new_batch(images[0].input, fair)
            start = len(batch.images)
            images = images[: batch.size - start]
            batch.images += images
            batch.in_copy += 1
            if len(batch.images) == batch.size:
                self._open = None
        with self.stage("normalise"):
            for slot, image in enumerate(images, start):
                batch.memory[slot].copy_(image.input)
                image.input = None
        with self._changed:
            batch.in_copy -= 1
            if batch is not self._open and not batch.in_copy:
                self._full.append(batch)
                self._changed.notify_all()
        return len(images)

    def _new_batch(self, example: Any, fair: int) -> _Batch:
        from featuretl.backbones.devices import staging_memory

        most = min(self.batch_size.current, max(1, _MOST_STAGED_BYTES // example.nbytes))
        size = min(most, fair)
        memory = self._free.pop()
        if memory is None or len(memory) < size:
            rows = min(most, _power_of_two(size))
            memory = staging_memory(rows, example, self.workers[0].backbone.device)
        return _Batch(memory, size)

    def _compute(self, worker: Any) -> None:
        """Embed batches on one device until there are no more, in this thread."""
        from featuretl.backbones.devices import own_stream

        running: deque[Future[float]] = deque()
        device = worker.backbone.device
        try:
            # Leaving this pool waits for the batches on the device, which are appended.
            with own_stream(device), ThreadPoolExecutor(1, "featuretl") as finishing:
                while batch := self._next():
                    batch.began = time.perf_counter()
                    batch.rows = worker.start(batch.inputs, self.stage)
                    last = running[-1] if running else None
                    running.append(finishing.submit(self._finish, batch, last))
                    if len(running) == _BATCHES_PER_DEVICE - 1:
                        running.popleft().result()
                for future in running:
                    future.result()
        except BaseException:
            self._end(stop=True)
            raise

    def _next(self) -> _Batch | None:
        """Wait for a full batch, or the last one; return None if there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._full or self._ended)
            return self._full.popleft() if self._full and not self._stopped else None

    def _finish(self, batch: _Batch, last: Future[float] | None) -> float:
        """Wait for a batch on a device, make room for another, and append its embeddings."""
        rows = batch.rows()[: len(batch.images)]
        ended = time.perf_counter()
        began = max(batch.began, last.result() if last else 0.0)  # the device was free from then on
        with self._changed:
            self.batch_size.record(len(batch.images), ended - began)
            self._free.append(batch.memory)
            self._changed.notify_all()
        self.append(batch.images, rows)
        return ended

    def _end(self, stop: bool) -> None:
        """Close the open batch, because all images are prepared; or stop, and drop batches."""
        with self._changed:
            if self._open and not stop:
                self._full.append(self._open)
                self._open = None
            self._ended = True
            self._stopped |= stop
            self._changed.notify_all()
