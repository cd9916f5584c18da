"""``featuretl cache``: inspect, free, verify and exchange cached embeddings."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import SIZE_UNITS, printable

from .options import Command, F, Quantity, cache_option, json_option, option
from .printing import print_json, print_table

if TYPE_CHECKING:
    from featuretl.store.store import EmbeddingStore


def _store_options(command: F) -> F:
    """Add --cache and --json, and pass the store to the command as `store`."""

    @functools.wraps(command)
    def opened(cache: str | None, **values: Any) -> Any:
        from featuretl.store.store import EmbeddingStore

        return command(store=EmbeddingStore(cache), **values)

    return cache_option(json_option(opened))  # type: ignore[return-value]


_space_option = option("--space", group="Input", default="", metavar="ID",
    show_default="all recipes",
    help="Recipe whose id, as cache info prints it, starts with ID.")  # fmt: skip


@click.group()
def cache() -> None:
    """Inspect, verify and exchange cached embeddings, and free disk space."""


command = functools.partial(cache.command, cls=Command)


@command()
@_store_options
def info(store: EmbeddingStore, as_json: bool) -> None:
    """Show the path of the cache, and the number and size of embeddings by recipe."""
    from rich.table import Table

    spaces = store.info()
    table = Table("backbone", "layers", "pooling", "size", "rows", "segments", "MiB", "space")
    for space in spaces:
        output = space.recipe["output"]
        table.add_row(
            space.recipe["backbone"]["name"],
            ", ".join(output["layers"]),
            output["pooling"] + _view_of(output),
            str(output["n_features"]),
            f"{space.rows:,}",
            str(space.segments),
            f"{space.bytes / 2**20:,.1f}",
            space.id[:12],
        )
    total = sum(space.rows for space in spaces), sum(space.bytes for space in spaces) / 2**20
    lines = [*([table] if spaces else []), f"{total[0]:,} embeddings, {total[1]:,.1f} MiB"]
    _show(store, as_json, {"spaces": [dataclasses.asdict(space) for space in spaces]}, lines)


@command()
@option("--max-size", group="Machine", type=Quantity(SIZE_UNITS, "20GB"), metavar="SIZE",
    help="Shrink the cache to this size, such as 20GB.")  # fmt: skip
@option("--older-than", group="Machine", metavar="AGE",
    type=Quantity({"h": 3600, "d": 86_400, "w": 604_800}, "90d"),
    help="Free embeddings that were last used longer ago, such as 90d.")  # fmt: skip
@_store_options
def gc(store: EmbeddingStore, max_size: int | None, older_than: int | None, as_json: bool) -> None:
    """Free disk space, starting with the least recently used embeddings.

    Without options it only merges small segments and removes leftovers of killed runs. The next run
    that needs a freed embedding computes it again.
    """
    from featuretl.store.collect import collect

    freed = collect(store, max_size, older_than)
    lines = []
    for space in freed.spaces:
        output: dict[str, Any] = space.recipe["output"]
        name, layers = space.recipe["backbone"]["name"], ", ".join(output["layers"])
        lines.append(f"freed {name}, {layers}{_view_of(output)}: {space.rows:,} rows")
    lines.append(
        f"Freed {freed.bytes / 2**20:,.1f} MiB: {len(freed.spaces)} recipes, {freed.views} views"
    )
    if freed.compacted:
        lines.append(f"Merged {freed.compacted:,} small segments")
    _show(store, as_json, dataclasses.asdict(freed), lines)


@command()
@option(
    "--repair", group="Machine", is_flag=True, help="Delete damaged files and rebuild the index."
)
@_store_options
def verify(store: EmbeddingStore, repair: bool, as_json: bool) -> None:
    """Read all cached embeddings and list damaged files.

    The exit status is 1 if a file is damaged and not repaired. The next run that needs a deleted
    embedding computes it again.
    """
    from featuretl.store.verify import verify

    findings = verify(store, repair)
    damaged = [finding for finding in findings if finding.damaged]
    lines = []
    for found in findings:
        kind = "damaged" if found.damaged else "left over"
        name = found.path.relative_to(store.path)
        lines.append(
            f"{kind}: {printable(name)}: {printable(found.problem)}{_to_recompute(found.rows)}"
        )
    rows = _to_recompute(sum(finding.rows for finding in damaged))
    lines.append(f"{len(damaged)} damaged, {len(findings) - len(damaged)} left over{rows}")
    if repair and findings:
        lines.append("Repaired: deleted these files and rebuilt the index.")
    elif damaged:
        lines.append("To repair it, run: featuretl cache verify --repair")
    described = [{**dataclasses.asdict(found), "path": str(found.path)} for found in findings]
    _show(store, as_json, {"repaired": repair, "findings": described}, lines)
    if damaged and not repair:
        raise click.exceptions.Exit(1)


@command()
@_store_options
def rebuild(store: EmbeddingStore, as_json: bool) -> None:
    """Rebuild the index from the cached files, and drop the saved image hashes.

    Use it if the index disagrees with the files. A damaged index is rebuilt automatically.
    """
    from featuretl.store.verify import rebuild

    segments, rows = rebuild(store)
    line = f"Found {segments:,} segments with {rows:,} embeddings"
    _show(store, as_json, {"segments": segments, "rows": rows}, [line])


@command()
@click.argument("output", metavar="OUT.npz|.parquet|SHARED")
@_space_option
@_store_options
def export(store: EmbeddingStore, output: str, space: str, as_json: bool) -> None:
    """Write the embeddings of one recipe to a file, or copy all to a shared store.

    OUT holds the embeddings of one recipe with the sha256 of each image. SHARED is a folder or a
    URL (s3://, gs://, ..); it receives the embeddings that it lacks, for "cache import" elsewhere.
    """
    from featuretl.extraction.outputs import export_space
    from featuretl.store.exchange import export_shared
    from featuretl.store.shared import SharedStore

    if output.endswith((".npz", ".parquet", ".npy")):
        rows = export_space(output, store, space)
    else:
        rows = export_shared(store, SharedStore(output), space)
    line = f"Wrote {rows:,} embeddings to {printable(output)}"
    _show(store, as_json, {"output": output, "rows": rows}, [line], with_path=False)


@command(name="import")
@click.argument("shared", metavar="SHARED")
@_space_option
@_store_options
def import_(store: EmbeddingStore, shared: str, space: str, as_json: bool) -> None:
    """Copy embeddings that the cache lacks from a shared store.

    SHARED is a folder or a URL that "extract --engine" or "cache export" wrote.
    """
    from featuretl.store.exchange import import_shared
    from featuretl.store.shared import SharedStore

    rows = import_shared(store, SharedStore(shared), space)
    line = f"Imported {rows:,} embeddings from {printable(shared)}"
    _show(store, as_json, {"shared": shared, "rows": rows}, [line])


def _show(
    store: EmbeddingStore,
    as_json: bool,
    facts: dict[str, Any],
    lines: list[Any],
    with_path: bool = True,
) -> None:
    """Print facts with the path of a store as JSON, or the path and lines of text or tables."""
    if as_json:
        print_json({"cache": str(store.path), **facts})
        return
    if with_path:
        click.echo(f"Cache: {printable(store.path)}")
    for line in lines:
        if isinstance(line, str):
            click.echo(line)
        else:
            print_table(line)


def _to_recompute(rows: int) -> str:
    return f" ({rows:,} embeddings to compute again)" if rows else ""


def _view_of(output: dict[str, Any]) -> str:
    return f", view {output['view']['number']}" if "view" in output else ""
