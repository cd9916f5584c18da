"""A worker process reads a shard, embeds it with the engine of `extract`, and commits it."""

from __future__ import annotations

import threading
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
from featuretl.store.lookup import MISSING, keys_list
from featuretl.store.shared import ShardEntry, SharedSpace, SharedStore, metadata_table

CAREFUL_SECONDS = 60.0  # decode_timeout for a shard whose worker was lost

_IMAGES_PER_BATCH = 1024
_MANY_IMAGES = 100_000  # the runtime is chosen for the whole extraction, not for one shard


@dataclass(frozen=True)
class Job:
    """The parameters of `extract_shards` that apply to all shards."""

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
    """A worker's report on a shard, without its rows."""

    entry: ShardEntry | None  # None if the shard could not be read; `error` gives the reason
    embedded: int = 0  # images embedded by this call; 0 if the shard was finished already
    error: str = ""  # one sentence
    runtime: str = ""
    # As in `Statistics`, and "start" (of the runtime) and "shard" (all else, such as writing it).
    costs: dict[str, float] = field(default_factory=dict)
    n_skipped: int = 0  # tar members that look like images but are not
    skipped: tuple[str, ...] = ()  # names of the first ones, with reasons


def describe(job: Job, careful: bool = False) -> tuple[Recipe, np.ndarray, dict[str, str]]:
    """Return the arguments of `SharedStore.open_space` for this process."""
    worker = _worker_of(job)
    return worker.source.recipe(), worker.source.encoder.golden, versions()


def embed_shard(job: Job, keyed: tuple[str, Shard], careful: bool = False) -> Receipt:
    """Embed and commit a shard unless it is finished; if `careful`, decode in child processes."""
    key, shard = keyed
    if careful and job.decode_timeout is None:
        job = replace(job, decode_timeout=CAREFUL_SECONDS)
    try:
        with _one_shard:  # the engine uses all threads of a worker
            return _worker_of(job).embed(key, shard)
    except InputError as error:
        return Receipt(None, error=str(error))
    except FeatureTLError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {error}")
        problem = f"unexpected {reason} (this is a bug in featuretl)"
        if is_out_of_memory(error):
            problem = f"out of memory ({reason}); use fewer workers, or a smaller batch_size"
        raise FeatureTLError(f"{shard.name} cannot be embedded: {problem}.") from error


class _Worker:
    """The backbone and the open space, which a process keeps from one shard to the next."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.source = Source(job.backbone, None, job.device, job.runtime, _MANY_IMAGES)

    @cached_property
    def _space(self) -> SharedSpace:
        space = SharedStore(self._job.url).space(self._job.space)
        same = canonical_json(self.source.recipe()) == canonical_json(space.recipe)
        if not same or not space.agrees(self.source.encoder.golden):
            raise BackboneError(
                f"A worker (with {versions()}) does not give the embeddings of the first worker; "
                "give all workers the same libraries, weights and kind of processor."
            )
        return space

    @cached_property
    def _decoder(self) -> Any:
        seconds = self._job.decode_timeout
        return decode if seconds is None else IsolatedDecoder(seconds)

    def embed(self, key: str, shard: Shard) -> Receipt:
        """Embed and commit a shard unless it is finished."""
        entry = self._space.entry(key)
        if entry is not None and not (self._job.retry_failed and entry.failures):
            return Receipt(entry)
        rows, costs = _Rows(), Costs()
        skipped: list[str] = []
        with costs.rest("shard"):
            images = _images(_timed(shard.samples(), costs), skipped)
            for samples in batches(images, _size, _IMAGES_PER_BATCH):
                self._embed_batch(samples, rows, costs)
            if not rows.n:
                reasons = f"; skipped: {'; '.join(skipped[:3])}" if skipped else ""
                raise InputError(f"{shard.name} holds no image{reasons}.")
            matrix, table = np.array(rows.rows, "<f4").reshape(-1, self._space.d), rows.table()
            entry = self._space.put(key, shard.name, rows.n, matrix, table, rows.failures)
        runtime, _ = self.source.encoder.choice or ("", None)
        first = tuple(skipped[:3])
        return Receipt(entry, entry.rows, "", runtime, costs.seconds, len(skipped), first)

    def _embed_batch(self, samples: list[Sample], rows: _Rows, costs: Costs) -> None:
        images = [sample.image for sample in samples if not isinstance(sample.image, ImageError)]
        run = Run(images, self.source, self._job.batch_size, self._n_threads, None, self._decoder)
        with costs.rest("start"):
            messages = {failure.index: failure.message for failure in run.run()}
            costs.add(run.statistics.costs)
        matrix = run.space.gather(run.locations)
        embedded = enumerate(zip(matrix, keys_list(run.keys), run.locations, strict=True))
        for sample in samples:
            if isinstance(sample.image, ImageError):
                rows.fail(sample, printable(sample.image))
                continue
            number, (row, key, location) = next(embedded)
            if location == MISSING:
                rows.fail(sample, messages[number])
            else:
                rows.add(sample, row, key)

    def close(self) -> None:
        """End the decoder's processes."""
        if isinstance(self._decoder, IsolatedDecoder):
            self._decoder.close()

    @property
    def _n_threads(self) -> int:
        if self._job.n_jobs is not None:
            return int(joblib.effective_n_jobs(self._job.n_jobs))
        try:
            from distributed import get_worker

            return int(get_worker().state.nthreads)
        except (ImportError, ValueError):  # this process is not a Dask worker
            return 1


class _Rows:
    """The embeddings, metadata and failures of the first n images of a shard."""

    def __init__(self) -> None:
        self.n = 0
        self.failures: list[tuple[int, str, str]] = []
        self.rows: list[np.ndarray] = []
        self._metadata: list[tuple[str, str | None, bytes, int]] = []

    def add(self, sample: Sample, row: np.ndarray, key: bytes) -> None:
        label = None if sample.label is None else as_utf8(sample.label)
        self._metadata.append((as_utf8(sample.name), label, key, self.n))
        self.rows.append(row)
        self.n += 1

    def fail(self, sample: Sample, message: str) -> None:
        self.failures.append((self.n, printable(sample.name), message))
        self.n += 1

    def table(self) -> Any:
        return metadata_table(*(zip(*self._metadata, strict=True) if self._metadata else [()] * 4))


_one_shard = threading.Lock()
_workers: dict[Job, _Worker] = {}


def _worker_of(job: Job) -> _Worker:
    """Return this process's worker for a job; jobs with the same backbone share the source."""
    if job not in _workers:
        worker, backbone = _Worker(job), (job.backbone, job.device, job.runtime)
        for other, existing in _workers.items():
            if (other.backbone, other.device, other.runtime) == backbone:
                worker.source = existing.source
        while len(_workers) >= 3:  # one each to describe, embed and embed carefully
            del _workers[next(iter(_workers))]
        _workers[job] = worker
    return _workers[job]


def release() -> None:
    """Close and forget the workers of this process."""
    while _workers:
        _workers.popitem()[1].close()


def _size(sample: Sample) -> int:
    return len(sample.image) if isinstance(sample.image, bytes) else 0


def _images(samples: Iterable[Sample], skipped: list[str]) -> Iterator[Sample]:
    """Yield samples that are images, and an error for a damaged rest; add others to `skipped`."""
    empty = True
    try:
        for sample in samples:
            if isinstance(sample.image, SkipReason):
                skipped.append(f"{printable(sample.name)} ({printable(sample.image.reason)})")
            else:
                empty = False
                yield sample
    except DamagedShardError as error:
        if empty:
            raise
        yield Sample("the rest of the shard", ImageError(str(error)))


def _timed(samples: Iterator[Sample], costs: Costs) -> Iterator[Sample]:
    """Yield the samples, and count the processor time for reading them."""
    while True:
        with costs.stage("read"):
            sample = next(samples, None)
        if sample is None:
            return
        yield sample
