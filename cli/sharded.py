"""``featuretl extract --engine loky|dask``: the same extraction in many processes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from featuretl.extraction.engine import Statistics
    from featuretl.scaleout.extraction import ShardedExtraction

F = TypeVar("F", bound=Callable[..., Any])

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
        "--scheduler", metavar="ADDRESS", help="Of a running Dask cluster.  [default: one started here]"
    ),
    "gpu_per_worker": click.option(
        "--gpu-per-worker", type=click.IntRange(min=1), help="GPUs that each Dask worker has to itself."
    ),
    "images_per_shard": click.option(
        "--images-per-shard", type=click.IntRange(min=1),
        help="Of what has no shards of its own.  [default: 1000]",
    ),
    "dtype": click.option(
        "--dtype", type=click.Choice(["float32", "float16"]), help="Of an engine's output.  [default: float32]"
    ),
    "retry_failed": click.option(
        "--retry-failed", is_flag=True, default=None, help="Embed finished shards with bad images again."
    ),
}  # fmt: skip


def engine_options(command: F) -> F:
    """Add --engine and what belongs to it, as `engine` and `engine_settings`."""

    @functools.wraps(command)
    def collected(engine: str, **options: Any) -> Any:
        settings = {name: options.pop(name) for name in _OPTIONS}
        given = {name: value for name, value in settings.items() if value is not None}
        for name in given:
            dask_only = name in ("scheduler", "gpu_per_worker")
            if engine == "threads" or (dask_only and engine != "dask"):
                other = "dask" if dask_only else "loky or dask"
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --engine {other}.")
        return command(engine=engine, engine_settings=given, **options)

    for option in reversed(_OPTIONS.values()):
        collected = option(collected)
    engines = click.Choice(["threads", "loky", "dask"])
    return click.option(
        "--engine", type=engines, default="threads", show_default=True,
        help="Who works: threads of this process, processes (loky), or a Dask cluster.",
    )(collected)  # type: ignore[return-value]  # fmt: skip


def extract_on_engine(
    photos: tuple[str, ...],
    engine: str,
    output: str | None,
    on_error: str,
    as_json: bool,
    profile: bool,
    *,
    store: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    gpu_per_worker: int = 0,
    dtype: str = "float32",
    **options: Any,
) -> None:
    """Embed PHOTOS shard by shard, write OUT, and say what was done."""
    from featuretl.scaleout.output import check_shard_output, save_shards
    from featuretl.store.store import default_cache

    from .tables import print_costs, print_failures

    if store is None:
        if scheduler is not None:
            raise click.UsageError("--scheduler needs --store: a place that all workers see.")
        store = str(default_cache() / "shared")
    if on_error == "nan":
        raise click.UsageError("--on-error nan goes with --engine threads; with others use skip.")
    if output is not None:
        check_shard_output(output)
    if engine == "dask":
        from featuretl.scaleout.cluster import dask_workers

        _quieten_dask()
        working: Any = dask_workers(scheduler, workers, gpu_per_worker)
        workers = None
    else:
        working, workers = contextlib.nullcontext(), workers or -1
    with working:
        extraction = _extract(photos, store, workers=workers, **options)
    print_failures(extraction.failures, "images or shards without an embedding")
    failed = bool(extraction.failures) and on_error == "raise"
    if failed:
        output = None
    if output is not None:
        save_shards(output, extraction, dtype=dtype)
    _show_summary(extraction, engine, output, as_json)
    if profile and not as_json:
        print_costs(extraction.statistics)
    if failed:
        raise click.exceptions.Exit(1)


def _quieten_dask() -> None:
    """Keep Dask's log off stderr: what goes wrong is said in one sentence."""
    if os.environ.get("FEATURETL_DEBUG"):
        return
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401  # it sets up its log now, not later
    for name in ("distributed", "distributed.client", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _extract(photos: tuple[str, ...], store: str, **options: Any) -> ShardedExtraction:
    from featuretl.extraction.progress import embedding_bar
    from featuretl.scaleout.extraction import extract_shards

    last: list[Statistics] = []
    try:
        with embedding_bar(0) as show:

            def progress(statistics: Statistics) -> None:
                last[:] = [statistics]
                show(statistics)

            return extract_shards(photos, store=store, on_error="nan", progress=progress, **options)
    except KeyboardInterrupt:
        embedded = last[0].embedded if last else 0
        message = (
            f"Interrupted. {embedded} new embeddings are kept: run the command again to go on."
        )
        click.echo(message, err=True)
        raise


def _show_summary(
    extraction: ShardedExtraction, engine: str, output: str | None, as_json: bool
) -> None:
    statistics = extraction.statistics
    facts = {
        **dataclasses.asdict(statistics),
        "images_per_second": statistics.images_per_second,
        "backbone": extraction.recipe["backbone"]["name"],
        "n_features": extraction.n_features,
        "engine": engine,
        "shards": len(extraction.keys),
        "store": extraction.store.url,
        "output": output,
    }
    if as_json:
        failures = [{"path": one.name, "error": one.message} for one in extraction.failures]
        click.echo(json.dumps({**facts, "failures": failures}))
        return
    from .tables import print_summary

    print_summary(facts, statistics)
