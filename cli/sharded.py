"""``featuretl extract --engine loky|dask``: extraction in worker processes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import Any

import click

from .extraction import finish, run_extraction
from .options import F, collected, option

# Options of the engines loky and dask; those in _DASK_ONLY require dask.
_OPTIONS = {
    "store": option("--store", group="Machine", metavar="DIR|URL",
        show_default="'shared' in the cache", help="Shared store of the workers."),
    "workers": option("--workers", group="Machine", rare=True, type=click.IntRange(min=1),
        metavar="N", show_default="one per core", help="Number of worker processes."),
    "scheduler": option("--scheduler", group="Machine", rare=True, metavar="ADDRESS",
        show_default="start one", help="Address of a running Dask cluster."),
    "gpu_per_worker": option("--gpu-per-worker", group="Machine", rare=True,
        type=click.IntRange(min=1), metavar="N", help="GPUs reserved for each Dask worker."),
    "images_per_shard": option("--images-per-shard", group="Machine", rare=True,
        type=click.IntRange(min=1), metavar="N", show_default="1000",
        help="Shard size of sources without shards."),
    "dtype": option("--dtype", group="Output", rare=True, type=click.Choice(["float32", "float16"]),
        show_default="float32", help="Data type in the files of loky and dask."),
    "retry_failed": option("--retry-failed", group="Machine", rare=True, is_flag=True, default=None,
        help="Embed finished shards that have unreadable images again."),
}  # fmt: skip
_DASK_ONLY = ("scheduler", "gpu_per_worker")


def engine_options(command: F) -> F:
    """Add --engine and the options of engines, as `engine` and `engine_settings`."""

    @functools.wraps(command)
    def checked(engine: str, engine_settings: dict[str, Any], **options: Any) -> Any:
        given = {name: value for name, value in engine_settings.items() if value is not None}
        for name in given:
            if engine == "threads" or (name in _DASK_ONLY and engine != "dask"):
                needed = "dask" if name in _DASK_ONLY else "loky or dask"
                raise click.UsageError(f"--{name.replace('_', '-')} requires --engine {needed}.")
        return command(engine=engine, engine_settings=given, **options)

    engines = click.Choice(["threads", "loky", "dask"])
    return option(
        "--engine", group="Machine", type=engines, default="threads",
        help="Threads, loky processes, or a Dask cluster.",
    )(collected("engine_settings", _OPTIONS)(checked))  # type: ignore[return-value]  # fmt: skip


def extract_on_engine(
    photos: tuple[str, ...],
    engine: str,
    output: str | None,
    shown: dict[str, Any],
    *,
    store: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    gpu_per_worker: int = 0,
    dtype: str = "float32",
    **options: Any,
) -> None:
    """Embed PHOTOS shard by shard, write OUT, print a summary; `shown` are for `finish`."""
    from featuretl.scaleout.extraction import extract_shards
    from featuretl.scaleout.output import check_shard_output, save_shards
    from featuretl.store.store import default_cache

    if store is None:
        if scheduler is not None:
            raise click.UsageError(
                "--scheduler requires --store: name a store that all workers can reach."
            )
        store = str(default_cache() / "shared")
    if shown["on_error"] == "nan":
        raise click.UsageError("--on-error nan requires --engine threads; use --on-error skip.")
    if output is not None:
        check_shard_output(output)
    working: Any = contextlib.nullcontext()
    if engine == "dask":
        from featuretl.scaleout.cluster import dask_workers

        _quieten_dask()
        working, workers = dask_workers(scheduler, workers, gpu_per_worker), None
    else:
        workers = workers or -1
    with working:
        extraction = run_extraction(extract_shards, photos, store, workers=workers, **options)
    facts = {
        "n_features": extraction.n_features,
        "engine": engine,
        "shards": len(extraction.keys),
        "store": extraction.store.url,
        "output": output,
    }
    failures = [{"path": one.name, "error": one.message} for one in extraction.failures]

    def save() -> None:
        assert output is not None  # nosec B101
        save_shards(output, extraction, dtype=dtype)

    what = "images or shards without an embedding"
    finish(extraction, save, facts, failures, what=what, **shown)


def _quieten_dask() -> None:
    """Keep Dask's log off stderr: an error is one sentence there."""
    if os.environ.get("FEATURETL_DEBUG"):
        return
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401  # its import sets up the log
    for name in ("distributed", "distributed.client", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
