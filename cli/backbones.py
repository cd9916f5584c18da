"""``featuretl backbones``: what can be used, and where the weights come from."""

from __future__ import annotations

import dataclasses
import json

import click

from .options import json_option


@click.command()
@click.argument("pattern", required=False)
@json_option
def backbones(pattern: str | None, as_json: bool) -> None:
    """List backbones: the packaged ones, or all of timm's that match PATTERN.

    PATTERN is a shell pattern ("resnet*", "*dinov2*") or a part of a name. Any of them can be used
    by name; a local weights file (--weights FILE) or --weights random needs no download.
    """
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from featuretl.backbones.catalog import backbone_names, describe_backbones
    from featuretl.exceptions import InputError

    from .tables import print_table

    names = backbone_names(pattern)
    if not names:
        raise InputError(f"timm has no pretrained model whose name matches {pattern!r}.")
    described = track(
        describe_backbones(names),
        "Describing",
        total=len(names),
        console=Console(stderr=True),
        transient=True,
        disable=len(names) < 8,
    )
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) for info in described]))
        return
    table = Table("backbone", "weights", "embedding", "input", "parameters")
    for info in described:
        weights = f"{info.source}: {info.note}" if info.note else info.source
        height, width = info.input_size[1:]
        size = f"{height} x {width}"
        table.add_row(
            info.name, weights, f"{info.n_features}", size, f"{info.n_parameters / 1e6:.1f} M"
        )
    print_table(table)
    if pattern is None:
        click.echo("Also every model of timm: featuretl backbones PATTERN", err=True)
