"""``featuretl cache``: the cached embeddings, their place and their size."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import SIZE_UNITS, printable

from .options import F, Quantity, cache_option, json_option
from .printing import print_json, print_table

if TYPE_CHECKING:
    from featuretl.store.store import EmbeddingStore

SIZES = Quantity("SIZE", SIZE_UNITS, "20GB")
AGES = Quantity("AGE", {"h": 3600, "d": 86_400, "w": 604_800}, "90d")


def _store_options(command: F) -> F:
    """Add --cache and --json; the command gets the store, as `store`."""

    @functools.wraps(command)
    def opened(cache: str | None, **values: Any) -> Any:
        from featuretl.store.store import EmbeddingStore

        return command(store=EmbeddingStore(cache), **values)

    return cache_option(json_option(opened))  # type: ignore[return-value]


_space_option = click.option(
    "--space", default="", metavar="ID",
    help="Which recipe, where there are several: the first digits of its id in `cache info`.",
)  # fmt: skip


@click.group()
def cache() -> None:
    """Inspect the cached embeddings, and free disk space."""


@cache.command()
@_store_options
def info(store: EmbeddingStore, as_json: bool) -> None:
    """Show where embeddings are cached, how many of which recipe, and their size."""
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


@cache.command()
@click.option("--max-size", type=SIZES, help="Size of the cache to get down to, e.g. 20GB.")
@click.option(
    "--older-than", type=AGES, help="Free embeddings that were not used for this long, e.g. 90d."
)
@_store_options
def gc(store: EmbeddingStore, max_size: int | None, older_than: int | None, as_json: bool) -> None:
    """Free disk space: the least recently used embeddings first, and leftovers of killed runs.

    Small segments of what stays are merged, whatever the options. Nothing is lost but time: freed
    images are embedded again when they are asked for.
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


@cache.command()
@click.option("--repair", is_flag=True, help="Delete damaged files, and rebuild the index.")
@_store_options
def verify(store: EmbeddingStore, repair: bool, as_json: bool) -> None:
    """Read all cached embeddings, and list damaged files.

    Deleted embeddings are computed again when they are asked for. The exit status is 1 if something is
    damaged and not repaired.
    """
    from featuretl.store.verify import verify

    findings = verify(store, repair)
    damaged = [finding for finding in findings if finding.damaged]
    lines = []
    for found in findings:
        kind = "damaged" if found.damaged else "left over"
        name = found.path.relative_to(store.path)
        lines.append(f"{kind}: {printable(name)}: {printable(found.problem)}{_again(found.rows)}")
    rows = _again(sum(finding.rows for finding in damaged))
    lines.append(f"{len(damaged)} damaged, {len(findings) - len(damaged)} left over{rows}")
    if repair and findings:
        lines.append("Repaired: all of these are gone, and the index is rebuilt.")
    elif damaged:
        lines.append("Repair it with: featuretl cache verify --repair")
    described = [{**dataclasses.asdict(found), "path": str(found.path)} for found in findings]
    _show(store, as_json, {"repaired": repair, "findings": described}, lines)
    if damaged and not repair:
        raise click.exceptions.Exit(1)


@cache.command()
@_store_options
def rebuild(store: EmbeddingStore, as_json: bool) -> None:
    """Rebuild the index from the cached files, and forget the hashes of images.

    Needed only if the index disagrees with the files: a damaged one is rebuilt automatically.
    """
    from featuretl.store.verify import rebuild

    segments, rows = rebuild(store)
    line = f"Found {segments:,} segments with {rows:,} embeddings"
    _show(store, as_json, {"segments": segments, "rows": rows}, [line])


@cache.command()
@click.argument("output", metavar="OUT.npz|.parquet|SHARED")
@_space_option
@_store_options
def export(store: EmbeddingStore, output: str, space: str, as_json: bool) -> None:
    """Write all embeddings of one recipe to OUT, with the sha256 of each image.

    SHARED, a folder or a URL (s3://, gs://, ..), is a shared store: embeddings of all recipes that it
    lacks are copied there, for `cache import` on another machine.
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


@cache.command(name="import")
@click.argument("shared", metavar="SHARED")
@_space_option
@_store_options
def import_(store: EmbeddingStore, shared: str, space: str, as_json: bool) -> None:
    """Copy the embeddings of SHARED, a shared store, that are not cached here yet.

    SHARED is a folder or a URL that `extract --engine` or `cache export` wrote.
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
    """Print the path of a store with facts as JSON, or with lines, of text or tables."""

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


def _again(rows: int) -> str:
    return f" ({rows:,} embeddings to make again)" if rows else ""


def _view_of(output: dict[str, Any]) -> str:
    return f", view {output['view']['number']}" if "view" in output else ""
