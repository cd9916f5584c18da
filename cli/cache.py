"""``featuretl cache``: what is kept, and where."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from .options import Quantity, cache_option, json_option

SIZES = Quantity("SIZE", {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}, "20GB")
AGES = Quantity("AGE", {"h": 3600, "d": 86_400, "w": 604_800}, "90d")


@click.group()
def cache() -> None:
    """Look at the kept embeddings, and free them."""


@cache.command()
@cache_option
@json_option
def info(cache: str | None, as_json: bool) -> None:
    """Show where embeddings are kept, how many of which recipe, and their size."""
    from featuretl._validation import printable
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

    Nothing is lost but time: what is freed is embedded again when it is asked for.
    """
    from featuretl._validation import printable
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


def _view_of(output: dict[str, Any]) -> str:
    return f", view {output['view']['number']}" if "view" in output else ""
