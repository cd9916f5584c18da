"""What a worker process does with a shard: read, embed by the engine of `extract`, commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import joblib
import numpy as np

from featuretl._core.text import as_utf8, printable
from featuretl.exceptions import (
    BackboneError,
    FeatureTLError,
    ImageError,
    InputError,
    is_out_of_memory,
)
from featuretl.extraction.costs import Costs
from featuretl.extraction.engine import Run
from featuretl.extraction.source import Source
from featuretl.images.decode import decode
from featuretl.images.isolated import IsolatedDecoder
from featuretl.images.shards import DamagedShardError, Sample, Shard, SkipReason, batches
from featuretl.runtimes.choice import versions
from featuretl.store.keys import Recipe, canonical_json
from featuretl.store.lookup import MISSING
from featuretl.store.shared import ShardEntry, SharedSpace, SharedStore, metadata_table
from featuretl.store.space import gather

CAREFUL_SECONDS = 60.0  # for an image of a shard that a worker did not survive

_IMAGES_AT_ONCE = 1024
_MANY = 100_000  # a choice of runtime is made for the whole extraction, not for a shard


@dataclass(frozen=True)
class Job:
    """What all shards of an extraction have in common; the parameters of `extract_shards`."""

    backbone: Any
    url: str
    device: Any = "auto"
    runtime: str = "auto"
    batch_size: int | str = "auto"
    n_jobs: int | None = None
    decode_timeout: float | None = None
    retry_failed: bool = False
    space: str = ""


@dataclass(frozen=True)
class Receipt:
    """What a worker returns of a shard: never its rows.

    Attributes
    ----------
    entry : ShardEntry or None
        None where the shard could not be read.
    embedded : int
        How many images were embedded now; 0 where it was finished already.
    error : str
        Why the shard could not be read; one sentence.
    runtime : str
    costs : dict of str to float
        Both as in `featuretl.extraction.engine.Statistics`; besides, "start" is the choice of a runtime and
        its start, "shard" what else this process did: put rows together, write the shard, talk to
        the scheduler.
    passed_over : int
        How much could have been an image and is none, of which some are `named`, with the reason.
    """

    entry: ShardEntry | None
    embedded: int = 0
    error: str = ""
    runtime: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    passed_over: int = 0
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyedShard:
    """A shard and its key."""

    key: str
    shard: Shard


def describe(job: Job, careful: bool = False) -> tuple[Recipe, np.ndarray, dict[str, str]]:
    """Return what `SharedStore.open_space` needs, as this process finds it."""
    worker = _worker_of(job)
    return worker.source.recipe(), worker.source.encoder.golden, versions()


def embed_shard(job: Job, planned: KeyedShard, careful: bool = False) -> Receipt:
    """Embed a shard and commit it, unless it is finished.

    Parameters
    ----------
    careful : bool, default=False
        Decode in child processes: what kills a decoder is then a bad image and not the end of this
        process.

    Raises
    ------
    FeatureTLError
        If no shard can be embedded here: the store, the backbone, or an error of this program.
    """
    if careful and job.decode_timeout is None:
        job = replace(job, decode_timeout=CAREFUL_SECONDS)
    try:
        with _ONE_SHARD_AT_A_TIME:  # of a worker with several threads; the engine uses them all
            return _worker_of(job).embed(planned)
    except InputError as error:
        return Receipt(None, error=str(error))
    except FeatureTLError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}")
        if is_out_of_memory(error):
            raise FeatureTLError(
                f"{planned.shard.name} cannot be embedded, as memory does not suffice ({reason}); use "
                "fewer workers, or a smaller batch_size."
            ) from error
        raise FeatureTLError(
            f"{planned.shard.name} cannot be embedded: unexpected {reason} (this is a bug in featuretl)."
        ) from error


class _Worker:
    """What a process keeps from one shard to the next: the backbone and the open space."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.source = Source(job.backbone, None, job.device, job.runtime, _MANY)

    @cached_property
    def _space(self) -> SharedSpace:
        space = SharedStore(self._job.url).space(self._job.space)
        same = canonical_json(self.source.recipe()) == canonical_json(space.recipe)
        if not same or not space.agrees(self.source.encoder.golden):
            raise BackboneError(
                f"A worker (with {versions()}) does not give the embeddings that the first one gave; "
                "give all workers the same libraries, weights and kind of processor."
            )
        return space

    @cached_property
    def _decoder(self) -> Any:
        seconds = self._job.decode_timeout
        return decode if seconds is None else IsolatedDecoder(seconds)

    def embed(self, planned: KeyedShard) -> Receipt:
        key, shard = planned.key, planned.shard
        entry = self._space.entry(key)
        if entry is not None and not (self._job.retry_failed and entry.failures):
            return Receipt(entry)
        began = time.process_time()
        rows = _Rows()
        costs = Costs()
        passed_over: list[str] = []
        images = _images(_timed(shard.samples(), costs), passed_over)
        for samples in batches(images, _size, _IMAGES_AT_ONCE):
            self._embed_some(samples, rows, costs)
        named = tuple(passed_over[:3])
        if not rows.images:
            why = f"; passed over: {'; '.join(named)}" if named else ""
            raise InputError(f"{shard.name} holds no image{why}.")
        entry = self._space.put(
            key, shard.name, rows.images, rows.matrix(self._space.d), rows.table(), rows.failures
        )
        spent = time.process_time() - began - sum(costs.seconds.values())
        costs.add("shard", max(0.0, spent))
        runtime, _ = self.source.encoder.choice or ("", None)
        return Receipt(entry, entry.rows, "", runtime, costs.seconds, len(passed_over), named)

    def _embed_some(self, samples: list[Sample], rows: _Rows, costs: Costs) -> None:
        images = [sample.image for sample in samples if not isinstance(sample.image, ImageError)]
        run = Run(images, self.source, self._job.batch_size, self._n_threads, None, self._decoder)
        began = time.process_time()
        messages = {failure.index: failure.message for failure in run.run()}
        spent = run.statistics.costs
        start = max(0.0, time.process_time() - began - sum(spent.values()))
        for stage, seconds in {**spent, "start": start}.items():
            costs.add(stage, seconds)
        embedded = iter(zip(gather(run.space, run.locations), run.keys, strict=True))
        number = 0
        for sample in samples:
            if isinstance(sample.image, ImageError):
                rows.fail(sample, printable(sample.image))
                continue
            row, key = next(embedded)
            if run.locations[number] == MISSING:
                rows.fail(sample, messages[number])
            else:
                rows.add(sample, row, bytes(key).ljust(32, b"\0"))
            number += 1

    def close(self) -> None:
        """End the processes that decode."""
        if isinstance(self._decoder, IsolatedDecoder):
            self._decoder.close()

    @property
    def _n_threads(self) -> int:
        if self._job.n_jobs is not None:
            return int(joblib.effective_n_jobs(self._job.n_jobs))
        return _threads_of_dask() or 1


class _Rows:
    """The rows of a shard so far."""

    def __init__(self) -> None:
        self.images = 0
        self.failures: list[tuple[int, str, str]] = []
        self._rows: list[np.ndarray] = []
        self._columns: tuple[list[Any], ...] = ([], [], [], [])

    def add(self, sample: Sample, row: np.ndarray, key: bytes) -> None:
        label = None if sample.label is None else as_utf8(sample.label)
        values = as_utf8(sample.name), label, key, self.images
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._rows.append(row)
        self.images += 1

    def fail(self, sample: Sample, message: str) -> None:
        self.failures.append((self.images, printable(sample.name), message))
        self.images += 1

    def matrix(self, d: int) -> np.ndarray:
        return np.array(self._rows, "<f4").reshape(-1, d)

    def table(self) -> Any:
        return metadata_table(*self._columns)


_ONE_SHARD_AT_A_TIME = threading.Lock()
_workers: dict[Job, _Worker] = {}


def _worker_of(job: Job) -> _Worker:
    """Return what this process keeps for a job; one that differs in details shares the backbone."""
    if job not in _workers:
        worker = _Worker(job)
        for other, kept in _workers.items():
            if (other.backbone, other.device, other.runtime) == (
                job.backbone,
                job.device,
                job.runtime,
            ):
                worker.source = kept.source
        while len(_workers) >= 3:  # described, embedded, carefully embedded
            del _workers[next(iter(_workers))]
        _workers[job] = worker
    return _workers[job]


def release() -> None:
    """Forget what this process keeps; in a worker that ends with the process."""
    while _workers:
        _workers.popitem()[1].close()


def _size(sample: Sample) -> int:
    return len(sample.image) if isinstance(sample.image, bytes) else 0


def _images(samples: Iterable[Sample], passed_over: list[str]) -> Iterator[Sample]:
    """Yield the samples that are images; name the others in `passed_over`.

    Of a shard that is damaged further on the images before are kept; the damage is the last one.
    """
    some = False
    try:
        for sample in samples:
            if isinstance(sample.image, SkipReason):
                passed_over.append(f"{printable(sample.name)} ({printable(sample.image.reason)})")
            else:
                some = True
                yield sample
    except DamagedShardError as error:
        if not some:
            raise
        yield Sample("the rest of the shard", ImageError(str(error)))


def _timed(samples: Iterator[Sample], costs: Costs) -> Iterator[Sample]:
    """Yield the samples, and count the processor time that it takes to read them."""
    while True:
        began = time.thread_time()
        sample = next(samples, None)
        costs.add("read", time.thread_time() - began)
        if sample is None:
            return
        yield sample


def _threads_of_dask() -> int | None:
    """Return how many threads this Dask worker has; None where this is none."""
    try:
        from distributed import get_worker

        return int(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return None
