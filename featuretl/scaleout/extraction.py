"""extract_shards: from sources of any size to a shared store, shard by shard."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from featuretl._core.parameters import check_bool
from featuretl._core.text import printable
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import (
    FeatureTLError,
    FeatureTLWarning,
    ImageError,
    InputError,
    StoreError,
)
from featuretl.extraction.costs import Costs
from featuretl.extraction.engine import Failure, Progress, Statistics
from featuretl.extraction.extraction import check_parameters
from featuretl.images.shard_sources import IMAGES_PER_SHARD, find_shards
from featuretl.images.shards import Shard
from featuretl.scaleout.engines import Engine, WorkerLostError, active_engine, results
from featuretl.scaleout.worker import Job, KeyedShard, Receipt, describe, embed_shard, release
from featuretl.store.keys import Recipe
from featuretl.store.shared import ShardEntry, SharedSpace, SharedStore

_NAMED = 1000  # failures kept in memory; all of them are in the shared store
_LOOKED_UP_AT_ONCE = 256
_KILLED = (
    "no worker process survived it, alone and with decoding in processes of their own: look for "
    "the images that take all memory, or give workers more of it"
)


@dataclass(eq=False, frozen=True)
class ShardedExtraction:
    """Embeddings in a shared store, in the order of their sources; what `extract_shards` returns.

    Attributes
    ----------
    store : SharedStore
    recipe : dict
        What made the embeddings; see `featuretl.store.keys`.
    statistics : Statistics
        Of all workers; `cached` counts images of shards that were finished before.
    failures : list of Failure
        The first 1,000 images without an embedding, `index` being the number in their shard;
        `statistics.failed` counts all. With index -1: shards that could not be read, or that no
        worker survived.
    keys : ndarray (n_shards,), S32
        Of the shards, in the order of the sources.
    """

    store: SharedStore
    recipe: Recipe
    statistics: Statistics
    failures: list[Failure]
    keys: np.ndarray
    _space: SharedSpace

    @property
    def n_features(self) -> int:
        """Size of an embedding."""
        return self._space.d

    def entries(self) -> Iterator[ShardEntry]:
        """Yield the entries of the finished shards, in order. Raises StoreError if some are gone."""
        keys = [self.keys[i : i + 1].tobytes().hex() for i in range(len(self.keys))]
        rows, expected = 0, self.statistics.cached + self.statistics.embedded
        for entry in filter(None, self._space.entries(keys)):
            rows += entry.rows
            yield entry
        if rows < expected:
            raise StoreError(
                f"The shared store {printable(self.store.url)!r} holds {rows} of the {expected} "
                "embeddings of this extraction; entries of shards were removed or damaged "
                "meanwhile: run it again."
            )

    def shards(self) -> Iterator[tuple[np.ndarray, Any, ShardEntry]]:
        """Yield, shard by shard in order, embeddings, float32 (n, d), their table, and the entry.

        The tables (pyarrow) have the columns ``path``, ``label``, ``sha256`` and ``number``.
        """
        for entry in self.entries():
            yield *self._space.load(entry), entry


def extract_shards(
    images: Any,
    backbone: Any = "tf_efficientnet_lite0",
    *,
    store: str | os.PathLike[str] | SharedStore,
    workers: int | None = None,
    n_jobs: int | None = None,
    device: Any = "auto",
    runtime: str = "auto",
    batch_size: int | str = "auto",
    on_error: str = "raise",
    decode_timeout: float | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> ShardedExtraction:
    """Embed images of any number, in processes on one machine or on many, into a shared store.

    Parameters
    ----------
    images : path, sequence of paths or of bytes, or Hugging Face dataset
        Folders, globs, manifests, tar files in WebDataset layout, Parquet files of images, and URLs
        of these; see `featuretl.images.shard_sources.find_shards`.
    backbone : str or BackboneSpec, default="tf_efficientnet_lite0"
    store : path, URL or SharedStore
        A folder that all workers see, or a URL of an object store that all can reach.
    workers : int, optional
        Worker processes on this machine (loky); -1 is one per usable core. None is what
        ``joblib.parallel_config`` says: without it, this process alone; with ``backend="dask"``
        all workers of that cluster, whatever this parameter says.
    n_jobs : int, optional
        Threads of each worker. None is as many as a Dask worker has, one in loky's, and one per
        usable core in this process alone.
    device, runtime, batch_size, decode_timeout :
        As in `extract`, in each worker.
    on_error : {"raise", "nan"}, default="raise"
        What bad images and shards are: an error, once all else is embedded and kept, or `failures`.
    path_column, label_column, images_per_shard :
        See `find_shards`.
    retry_failed : bool, default=False
        Embed finished shards again that hold images without an embedding.
    progress : callable, optional
        Called with the `Statistics` so far whenever a shard is done.

    Returns
    -------
    extraction : ShardedExtraction

    Raises
    ------
    ImageError, InputError
        With ``on_error="raise"``, naming the bad images or shards; and if a source is missing.
    BackboneError, ParameterError, StoreError, FeatureTLError
        If something cannot be used as it is.

    Notes
    -----
    A shard, a tar file, a row group or `images_per_shard` consecutive files, is embedded by one
    worker and then committed as a whole. However this ends, finished shards are kept, and the next call
    skips them, without reading an image, as long as names, labels, sizes and times of their files
    are the same. Only shard descriptions and receipts pass through this process.

    A shard whose worker is killed is tried again; where that happens repeatedly its images are
    decoded in child processes (as with `decode_timeout`), so that one that kills a decoder is a bad
    image and the others are kept.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> photos = load_sample_images().filenames  # flower.jpg, china.jpg
    >>> found = extract_shards(photos, store="memory://embeddings", runtime="torch")
    >>> [rows.shape for rows, table, entry in found.shards()], found.statistics.embedded
    ([(2, 1280)], 2)

    On a Dask cluster::

        client = distributed.Client("scheduler:8786")
        with joblib.parallel_config(backend="dask"):
            extract_shards("s3://bucket/shards/*.tar", store="s3://bucket/embeddings")
    """
    check_parameters("extract_shards", batch_size, n_jobs, on_error, runtime, decode_timeout)
    check_bool("extract_shards", "retry_failed", retry_failed)
    if isinstance(backbone, str):
        backbone = BackboneSpec.of("extract_shards", backbone)
    shared = store if isinstance(store, SharedStore) else SharedStore(store)
    engine = active_engine(workers)
    if n_jobs is None and engine.name == "sequential":
        n_jobs = -1
    device = tuple(device) if isinstance(device, list) else device
    job = Job(
        backbone, shared.url, device, runtime, batch_size, n_jobs, decode_timeout, retry_failed
    )
    shards = find_shards(
        images,
        path_column=path_column,
        label_column=label_column,
        images_per_shard=images_per_shard,
    )
    first = next(shards)  # what is wrong with the sources is said before workers start
    try:
        run = _Run(shared, engine, job, progress)
        run.run(chain([first], shards))
    finally:
        engine.close()
        release()
    if run.failures and on_error == "raise":
        raise run.error()
    keys = np.frombuffer(bytes(run.keys), "S32")
    return ShardedExtraction(
        shared, run.space.recipe, run.statistics, run.failures, keys, run.space
    )


class _Run:
    """One call of `extract_shards`: what it has counted so far."""

    def __init__(
        self, store: SharedStore, engine: Engine, job: Job, progress: Progress | None
    ) -> None:
        self._costs = Costs()
        self.statistics = Statistics(0, costs=self._costs.seconds)
        self.failures: list[Failure] = []
        self.passed_over, self.named = 0, []  # type: int, list[str]
        self.keys = bytearray()
        self._engine, self._job, self._progress = engine, job, progress
        self._store = store
        self._began = time.monotonic()

    def run(self, shards: Iterable[Shard]) -> None:
        """Embed the shards that are not finished."""
        self.space = self._open()
        self._job = replace(self._job, space=self.space.id)
        todo = self._unfinished(shards)
        for planned, receipt in results(self._engine, partial(embed_shard, self._job), todo):
            self._note(planned, receipt)
        self._report()
        if self.passed_over:
            warnings.warn(
                f"{self.passed_over:,} members of tar files were passed over, such as "
                f"{'; '.join(self.named)}.",
                FeatureTLWarning,
                stacklevel=4,
            )

    def error(self) -> InputError:
        """Return the error that names the first failures."""
        named = "; ".join(f"{one.name}: {one.message}" for one in self.failures[:5])
        more = "; .." if self.statistics.failed > 5 else ""
        kind = InputError if any(one.index < 0 for one in self.failures) else ImageError
        return kind(
            f"{self.statistics.failed} of {self.statistics.images} images have no embedding "
            f"({named}{more}); all others are embedded and kept: fix or remove these, or pass "
            "on_error='nan' to continue without them."
        )

    def _open(self) -> SharedSpace:
        """Ask a worker what its embeddings will be, and open their space."""
        ((_, described),) = results(self._engine, describe, [self._job])
        if isinstance(described, WorkerLostError):
            raise FeatureTLError(
                "No worker process survived loading the backbone; give workers more memory."
            )
        return self._store.open_space(*described)

    def _unfinished(self, shards: Iterable[Shard]) -> Iterator[KeyedShard]:
        """Yield the shards that have no entry yet, and count the others."""
        finished = set(self.space.keys())
        shards = iter(shards)
        while some := list(islice(shards, _LOOKED_UP_AT_ONCE if finished else 1)):
            keys = [shard.key for shard in some]
            self.keys += b"".join(map(bytes.fromhex, keys))
            known = [key for key in keys if key in finished]
            entries = dict(zip(known, self.space.entries(known), strict=True))
            if entries:
                self._report()
            for key, shard in zip(keys, some, strict=True):
                entry = entries.get(key)
                if entry is not None and not (self._job.retry_failed and entry.failures):
                    self._count(entry, 0)
                    continue
                self.statistics.images += shard.images or 0
                yield KeyedShard(key, shard)

    def _note(self, planned: KeyedShard, receipt: Receipt | WorkerLostError) -> None:
        shard = planned.shard
        self.statistics.images -= shard.images or 0  # what was expected; now it is known
        if isinstance(receipt, WorkerLostError) or receipt.entry is None:
            message = _KILLED if isinstance(receipt, WorkerLostError) else receipt.error
            self.statistics.images += shard.images or 1
            self.statistics.failed += shard.images or 1
            self._fail(Failure(-1, shard.name, message))
        else:
            self.statistics.runtime = receipt.runtime or self.statistics.runtime
            for stage, seconds in receipt.costs.items():
                self._costs.add(stage, seconds)
            self._count(receipt.entry, receipt.embedded)
            self.passed_over += receipt.passed_over
            self.named += receipt.named[: 5 - len(self.named)]
        self._report()

    def _count(self, entry: ShardEntry, embedded: int) -> None:
        statistics = self.statistics
        statistics.images += entry.images
        statistics.embedded += embedded
        statistics.cached += entry.rows - embedded
        statistics.failed += len(entry.failures)
        for number, name, message in entry.failures:
            self._fail(Failure(number, printable(name), printable(message)))

    def _fail(self, failure: Failure) -> None:
        if len(self.failures) < _NAMED:
            self.failures.append(failure)

    def _report(self) -> None:
        self.statistics.seconds = time.monotonic() - self._began
        if self._progress:
            self._progress(self.statistics)
