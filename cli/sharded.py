"""``featuretl extract --engine loky|dask``: the same extraction in many processes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import Any

import click

from .extraction import finish, run_extraction
from .options import F, grouped

# Options of engines other than threads; --scheduler and --gpu-per-worker are Dask's.
_OPTIONS = {
    "store": click.option(
        "--store", metavar="DIR|URL",
        help="Shared store of the engines: a folder that all workers see, or s3://, gs://, ..  "
        "[default: 'shared' in $FEATURETL_CACHE, or in the user's cache directory]",
    ),
    "workers": click.option(
        "--workers", type=click.IntRange(min=1), help="Worker processes here.  [default: one per core]"
    ),
    "scheduler": click.option(
        "--scheduler", metavar="ADDRESS", help="Address of a running Dask cluster.  [default: one started here]"
    ),
    "gpu_per_worker": click.option(
        "--gpu-per-worker", type=click.IntRange(min=1), help="GPUs of each Dask worker, which no other worker uses."
    ),
    "images_per_shard": click.option(
        "--images-per-shard", type=click.IntRange(min=1),
        help="Images in each shard of a source without shards of its own.  [default: 1000]",
    ),
    "dtype": click.option(
        "--dtype", type=click.Choice(["float32", "float16"]), help="Type of the numbers in the output of loky and dask.  [default: float32]"
    ),
    "retry_failed": click.option(
        "--retry-failed", is_flag=True, default=None, help="Embed finished shards with bad images again."
    ),
}  # fmt: skip


def engine_options(command: F) -> F:
    """Add --engine and what belongs to it, as `engine` and `engine_settings`."""

    @functools.wraps(command)
    def checked(engine: str, engine_settings: dict[str, Any], **options: Any) -> Any:
        given = {name: value for name, value in engine_settings.items() if value is not None}
        for name in given:
            dask_only = name in ("scheduler", "gpu_per_worker")
            if engine == "threads" or (dask_only and engine != "dask"):
                other = "dask" if dask_only else "loky or dask"
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --engine {other}.")
        return command(engine=engine, engine_settings=given, **options)

    engines = click.Choice(["threads", "loky", "dask"])
    return click.option(
        "--engine", type=engines, default="threads", show_default=True,
        help="Execution backend: threads of this process, loky processes, or a Dask cluster.",
    )(grouped("engine_settings", _OPTIONS)(checked))  # type: ignore[return-value]  # fmt: skip


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
    """Embed PHOTOS shard by shard, write OUT, and print what was done.

    `shown` are --on-error, --json and --profile, as `finish` takes them.
    """
    from featuretl.scaleout.extraction import extract_shards
    from featuretl.scaleout.output import check_shard_output, save_shards
    from featuretl.store.store import default_cache

    if store is None:
        if scheduler is not None:
            raise click.UsageError("--scheduler needs --store: a place that all workers see.")
        store = str(default_cache() / "shared")
    if shown["on_error"] == "nan":
        raise click.UsageError("--on-error nan goes with --engine threads; with others use skip.")
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
    """Keep Dask's log off stderr: what goes wrong is said in one sentence."""
    if os.environ.get("FEATURETL_DEBUG"):
        return
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401  # it sets up its log now, not later
    for name in ("distributed", "distributed.client", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
