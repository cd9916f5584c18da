"""``featuretl cache``: what is kept, and where."""

from __future__ import annotations

import dataclasses
import json

import click

from .options import cache_option, json_option


@click.group()
def cache() -> None:
    """Look at the kept embeddings."""


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
            output["pooling"] + (f", view {output['view']['number']}" if "view" in output else ""),
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
