"""extract_shards embeds sources of any size into a shared store, shard by shard."""

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

from featuretl._core.display import Display
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
from featuretl.extraction.extraction import check_parameters
from featuretl.extraction.statistics import Failure, Progress, Statistics
from featuretl.images.shard_sources import IMAGES_PER_SHARD, find_shards
from featuretl.images.shards import Shard
from featuretl.scaleout.engines import Engine, WorkerLostError, active_engine, results
from featuretl.scaleout.worker import Job, Receipt, describe, embed_shard, release
from featuretl.store.keys import Recipe
from featuretl.store.lookup import keys_list
from featuretl.store.shared import ShardEntry, SharedSpace, SharedStore

_MAX_FAILURES = 1000  # in memory; the shared store holds all of them
_SHARDS_PER_LOOKUP = 256
_KILLED = (
    "it ended every worker process, even alone and with decoding in child processes: look for "
    "images that exhaust the memory, or give workers more memory"
)


@dataclass(eq=False, frozen=True, repr=False)
class ShardedExtraction(Display):
    """Embeddings in a shared store, in the order of their sources; the result of `extract_shards`.

    Attributes
    ----------
    store : SharedStore
    recipe : dict
        Recipe of the embeddings; see `featuretl.store.keys`.
    statistics : Statistics
        Statistics of all workers; `cached` counts images of shards that were finished before.
    failures : list of Failure
        The first 1,000 images without an embedding, where `index` is the number in the shard;
        `statistics.failed` counts all of them. Index -1 stands for a shard that could not be read
        or that ended every worker.
    keys : ndarray (n_shards,), S32
        Keys of the shards, in the order of the sources.
    """

    store: SharedStore
    recipe: Recipe
    statistics: Statistics
    failures: list[Failure]
    keys: np.ndarray
    _space: SharedSpace

    def _facts(self) -> dict[str, Any]:
        done = self.statistics
        return {
            "embeddings": f"float32, {done.cached + done.embedded:,} x {self.n_features:,}",
            "from": self.recipe["backbone"]["name"],
            "images": f"{done.cached:,} cached, {done.embedded:,} embedded, {done.failed:,} failed",
            "shards": f"{len(self.keys):,} in {self.store.url}",
        }

    @property
    def n_features(self) -> int:
        """Size of an embedding."""
        return self._space.d

    def entries(self) -> Iterator[ShardEntry]:
        """Yield the entries of the finished shards, in order; StoreError if some are missing."""
        keys = [key.hex() for key in keys_list(self.keys)]
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
        """Yield each shard's embeddings, float32 (n, d), pyarrow table, and entry, in order.

        The tables have the columns ``path``, ``label``, ``sha256`` and ``number``.
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
    """Embed any number of images into a shared store, in processes on one or many machines.

    Parameters
    ----------
    images : path, sequence of paths or of bytes, or Hugging Face dataset
        Paths, or URLs of any file system that fsspec supports (``s3://``, ``https://``, ..):

        - ``.tar`` files (``.tar.gz``, ..) in WebDataset layout; each is a shard;
        - ``.parquet`` files with the images' bytes, plain or as a struct of bytes and path; each
          row group is a shard;
        - ``.csv`` and ``.parquet`` manifests with a column of paths or URLs, and ``.txt`` lists
          with one per line, read in batches; relative paths start at the folder of the file;
        - folders (subfolders give labels), image files, glob patterns, and ranges of numbers such
          as ``{000..127}``.

        A dataset is one split from `datasets.load_dataset`, not streamed.
    backbone : str or BackboneSpec, default="tf_efficientnet_lite0"
    store : path, URL or SharedStore
        A folder, or a URL of an object store, that all workers can access.
    workers : int, optional
        Number of worker processes on this machine (loky); -1 starts one per usable core. By default
        ``joblib.parallel_config`` decides; without it, only this process works. With
        ``backend="dask"``, all workers of the cluster are used and this parameter is ignored.
    n_jobs : int, optional
        Number of threads per worker. By default the threads of a Dask worker, one in a loky worker,
        and one per usable core if only this process works.
    device, runtime, batch_size, decode_timeout
        As in `extract`, in each worker.
    on_error : {"raise", "nan"}, default="raise"
        For unreadable images and shards: raise an error after all others are embedded and saved, or
        list them in `failures`.
    path_column, label_column : str, optional
        Columns of manifests, Parquet files and datasets: paths or bytes, and labels; `label_column`
        is also a key in the JSON of tar files. The default is the first usual name that is present
        (`featuretl.images.tables`).
    images_per_shard : int, default=1000
        Number of images per shard, for sources without shards of their own.
    retry_failed : bool, default=False
        Whether to embed finished shards again if they have images without an embedding.
    progress : callable, optional
        Called with the current `Statistics` after each shard.

    Raises
    ------
    ImageError, InputError
        With ``on_error="raise"``, naming the bad images or shards; and if a source is missing.
    BackboneError, ParameterError, StoreError, FeatureTLError
        If the backbone, a parameter, the store or a worker cannot be used.

    Notes
    -----
    One worker embeds a shard and commits it atomically. Finished shards stay saved after any error
    or interrupt. The next call skips them, without reading an image, if names, labels, sizes and
    times of their files are unchanged. Only descriptions and receipts pass through this process.

    If a worker is killed, its shards are repeated, with images decoded in child processes (as with
    `decode_timeout`): an image that kills a decoder is then a bad image, and the others are saved.

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
    if n_jobs is None and type(engine) is Engine:
        n_jobs = -1
    device = tuple(device) if isinstance(device, list) else device
    job = Job(
        backbone, shared.url, device, runtime, batch_size, n_jobs, decode_timeout, retry_failed
    )
    columns = {"path_column": path_column, "label_column": label_column}
    shards = find_shards(images, **columns, images_per_shard=images_per_shard)
    first = next(shards)  # raises errors of the sources before workers start
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


@dataclass(eq=False)
class _Run:
    """One call of `extract_shards`, with its counts."""

    store: SharedStore
    engine: Engine
    job: Job
    progress: Progress | None

    def __post_init__(self) -> None:
        self._costs = Costs()
        self.statistics = Statistics(0, costs=self._costs.seconds)
        self.failures: list[Failure] = []
        self.keys = bytearray()
        self._n_skipped = 0
        self._skipped: list[str] = []
        self._began = time.monotonic()

    def run(self, shards: Iterable[Shard]) -> None:
        """Embed the unfinished shards."""
        self.space = self._open()
        self.job = replace(self.job, space=self.space.id)
        todo = self._unfinished(shards)
        for (_, shard), receipt in results(self.engine, partial(embed_shard, self.job), todo):
            self._add(shard, receipt)
        self._report()
        if self._n_skipped:
            warnings.warn(
                f"{self._n_skipped:,} members of tar files were skipped, such as "
                f"{'; '.join(self._skipped)}.",
                FeatureTLWarning,
                stacklevel=4,
            )

    def error(self) -> InputError:
        """Return the error that names the first failures."""
        named = "; ".join(f"{failure.name}: {failure.message}" for failure in self.failures[:5])
        more = "; .." if self.statistics.failed > 5 else ""
        kind = InputError if any(failure.index < 0 for failure in self.failures) else ImageError
        return kind(
            f"{self.statistics.failed} of {self.statistics.images} images have no embedding "
            f"({named}{more}); all others are embedded and saved: fix or remove these, or pass "
            "on_error='nan' to continue without them."
        )

    def _open(self) -> SharedSpace:
        """Have a worker describe its embeddings, and open their space."""
        ((_, description),) = results(self.engine, describe, [self.job])
        if isinstance(description, WorkerLostError):
            raise FeatureTLError(
                "No worker process survived loading the backbone; give workers more memory."
            )
        return self.store.open_space(*description)

    def _unfinished(self, shards: Iterable[Shard]) -> Iterator[tuple[str, Shard]]:
        """Yield (key, shard) of the shards that have no entry yet, and count the others."""
        finished = set(self.space.keys())
        shards = iter(shards)
        while part := list(islice(shards, _SHARDS_PER_LOOKUP if finished else 1)):
            keys = [shard.key for shard in part]
            self.keys += b"".join(map(bytes.fromhex, keys))
            known = [key for key in keys if key in finished]
            entries = dict(zip(known, self.space.entries(known), strict=True))
            if entries:
                self._report()
            for key, shard in zip(keys, part, strict=True):
                entry = entries.get(key)
                if entry is not None and not (self.job.retry_failed and entry.failures):
                    self._count(entry, 0)
                    continue
                self.statistics.images += shard.images or 0
                yield key, shard

    def _add(self, shard: Shard, receipt: Receipt | WorkerLostError) -> None:
        self.statistics.images -= shard.images or 0  # the expected number; now it is known
        if isinstance(receipt, WorkerLostError) or receipt.entry is None:
            message = _KILLED if isinstance(receipt, WorkerLostError) else receipt.error
            self.statistics.images += shard.images or 1
            self.statistics.failed += shard.images or 1
            self._fail(Failure(-1, shard.name, message))
        else:
            self.statistics.runtime = receipt.runtime or self.statistics.runtime
            self._costs.add(receipt.costs)
            self._count(receipt.entry, receipt.embedded)
            self._n_skipped += receipt.n_skipped
            self._skipped += receipt.skipped[: 5 - len(self._skipped)]
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
        if len(self.failures) < _MAX_FAILURES:
            self.failures.append(failure)

    def _report(self) -> None:
        self.statistics.seconds = time.monotonic() - self._began
        if self.progress:
            self.progress(self.statistics)
