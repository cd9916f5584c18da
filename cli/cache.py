"""``featuretl cache``: what is kept, and where."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from featuretl._core.text import SIZE_UNITS

from .options import Quantity, cache_option, json_option

SIZES = Quantity("SIZE", SIZE_UNITS, "20GB")
AGES = Quantity("AGE", {"h": 3600, "d": 86_400, "w": 604_800}, "90d")


@click.group()
def cache() -> None:
    """Look at the kept embeddings, and free them."""


@cache.command()
@cache_option
@json_option
def info(cache: str | None, as_json: bool) -> None:
    """Show where embeddings are kept, how many of which recipe, and their size."""
    from featuretl._core.text import printable
    from featuretl.store.store import EmbeddingStore

    store = EmbeddingStore(cache)
    spaces = store.info()
    if as_json:
        described = [dataclasses.asdict(space) for space in spaces]
        click.echo(json.dumps({"cache": str(store.path), "spaces": described}))
        return
    from rich.table import Table

    from .tables import print_table

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
    click.echo(f"Cache: {printable(store.path)}")
    if spaces:
        print_table(table)
    total = sum(space.rows for space in spaces), sum(space.bytes for space in spaces) / 2**20
    click.echo(f"{total[0]:,} embeddings, {total[1]:,.1f} MiB")


@cache.command()
@click.option("--max-size", type=SIZES, help="What may be left, e.g. 20GB.")
@click.option("--older-than", type=AGES, help="Free what was not used for so long, e.g. 90d.")
@cache_option
@json_option
def gc(max_size: int | None, older_than: int | None, cache: str | None, as_json: bool) -> None:
    """Free disk space: what was used longest ago first, and what killed runs left.

    Small segments of what stays are merged, whatever the options. Nothing is lost but time: what is freed is embedded again when it is asked for.
    """
    from featuretl._core.text import printable
    from featuretl.store.collect import collect
    from featuretl.store.store import EmbeddingStore

    store = EmbeddingStore(cache)
    freed = collect(store, max_size, older_than)
    if as_json:
        facts = {"cache": str(store.path), **dataclasses.asdict(freed)}
        click.echo(json.dumps(facts))
        return
    click.echo(f"Cache: {printable(store.path)}")
    for space in freed.spaces:
        output: dict[str, Any] = space.recipe["output"]
        name, layers = space.recipe["backbone"]["name"], ", ".join(output["layers"])
        click.echo(f"freed {name}, {layers}{_view_of(output)}: {space.rows:,} rows")
    click.echo(
        f"Freed {freed.bytes / 2**20:,.1f} MiB: {len(freed.spaces)} recipes, {freed.views} views"
    )
    if freed.compacted:
        click.echo(f"Merged {freed.compacted:,} small segments")


@cache.command()
@click.option("--repair", is_flag=True, help="Unlink what is damaged, and make the index anew.")
@cache_option
@json_option
def verify(repair: bool, cache: str | None, as_json: bool) -> None:
    """Read all that is kept, and name what is damaged.

    What is unlinked is embedded again when it is asked for. The exit status is 1 if something is
    damaged and not repaired.
    """
    from featuretl._core.text import printable
    from featuretl.store.store import EmbeddingStore
    from featuretl.store.verify import verify

    store = EmbeddingStore(cache)
    findings = verify(store, repair)
    damaged = [finding for finding in findings if finding.damaged]
    if as_json:
        described = [{**dataclasses.asdict(found), "path": str(found.path)} for found in findings]
        facts = {"cache": str(store.path), "repaired": repair, "findings": described}
        click.echo(json.dumps(facts))
    else:
        click.echo(f"Cache: {printable(store.path)}")
        for found in findings:
            kind = "damaged" if found.damaged else "left over"
            name = found.path.relative_to(store.path)
            click.echo(f"{kind}: {printable(name)}: {printable(found.problem)}{_again(found.rows)}")
        rows = _again(sum(finding.rows for finding in damaged))
        click.echo(f"{len(damaged)} damaged, {len(findings) - len(damaged)} left over{rows}")
        if repair and findings:
            click.echo("Repaired: all of these are gone, and the index is made anew.")
        elif damaged:
            click.echo("Repair it with: featuretl cache verify --repair")
    if damaged and not repair:
        raise click.exceptions.Exit(1)


@cache.command()
@cache_option
@json_option
def rebuild(cache: str | None, as_json: bool) -> None:
    """Make the index anew from the kept files, and forget the hashes of images.

    Needed only if the index does not say what is there: a damaged one is made anew by itself.
    """
    from featuretl._core.text import printable
    from featuretl.store.store import EmbeddingStore
    from featuretl.store.verify import rebuild

    store = EmbeddingStore(cache)
    segments, rows = rebuild(store)
    if as_json:
        click.echo(json.dumps({"cache": str(store.path), "segments": segments, "rows": rows}))
        return
    click.echo(f"Cache: {printable(store.path)}")
    click.echo(f"Found {segments:,} segments with {rows:,} embeddings")


_space_option = click.option(
    "--space", default="", metavar="ID",
    help="Which recipe, where there are several: how its id in `cache info` begins.",
)  # fmt: skip


@cache.command()
@click.argument("output", metavar="OUT.npz|.parquet|SHARED")
@_space_option
@cache_option
@json_option
def export(output: str, space: str, cache: str | None, as_json: bool) -> None:
    """Write all embeddings of one recipe to OUT, with the sha256 of each image.

    SHARED, a folder or a URL (s3://, gs://, ..), is a shared store: embeddings of all recipes that it
    lacks are copied there, for `cache import` on another machine.
    """
    from featuretl._core.text import printable
    from featuretl.extraction.outputs import export_space
    from featuretl.store.exchange import export_shared
    from featuretl.store.shared import SharedStore
    from featuretl.store.store import EmbeddingStore

    store = EmbeddingStore(cache)
    if output.endswith((".npz", ".parquet", ".npy")):
        rows = export_space(output, store, space)
    else:
        rows = export_shared(store, SharedStore(output), space)
    if as_json:
        click.echo(json.dumps({"cache": str(store.path), "output": output, "rows": rows}))
        return
    click.echo(f"Wrote {rows:,} embeddings to {printable(output)}")


@cache.command(name="import")
@click.argument("shared", metavar="SHARED")
@_space_option
@cache_option
@json_option
def import_(shared: str, space: str, cache: str | None, as_json: bool) -> None:
    """Copy the embeddings of SHARED, a shared store, that are not kept here yet.

    SHARED is a folder or a URL that `extract --engine` or `cache export` wrote.
    """
    from featuretl._core.text import printable
    from featuretl.store.exchange import import_shared
    from featuretl.store.shared import SharedStore
    from featuretl.store.store import EmbeddingStore

    store = EmbeddingStore(cache)
    rows = import_shared(store, SharedStore(shared), space)
    if as_json:
        click.echo(json.dumps({"cache": str(store.path), "shared": shared, "rows": rows}))
        return
    click.echo(f"Cache: {printable(store.path)}")
    click.echo(f"Imported {rows:,} embeddings from {printable(shared)}")


def _again(rows: int) -> str:
    return f" ({rows:,} embeddings to make again)" if rows else ""


def _view_of(output: dict[str, Any]) -> str:
    return f", view {output['view']['number']}" if "view" in output else ""
