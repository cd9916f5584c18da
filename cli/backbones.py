"""``featuretl backbones``: list backbones and the sources of their weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .options import cache_option, command, json_option, option, resolve_cache
from .printing import print_json, print_table

if TYPE_CHECKING:
    from featuretl.backbones.listing import BackboneInfo


@command()
@click.argument("pattern", required=False)
@option("--time", "timed", group="Machine", is_flag=True,
    help="Measure the speed of each runtime, about a minute per backbone.")  # fmt: skip
@cache_option
@json_option
def backbones(pattern: str | None, timed: bool, cache: str | None, as_json: bool) -> None:
    """List packaged backbones, or timm models that match PATTERN.

    PATTERN is a shell pattern ("resnet*", "*dinov2*") or a part of a name. Commands take the listed
    names as --backbone; with --weights FILE or random they download nothing. The cache saves the
    speeds that --time measures: extractions of 1,000 or more images use the fastest runtime.
    """
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from featuretl.backbones.listing import backbone_names, describe_backbones
    from featuretl.exceptions import InputError

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
    if timed:
        _show_speeds(list(described), cache, as_json)
        return
    if as_json:
        print_json({"backbones": [dataclasses.asdict(info) for info in described]})
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
        click.echo("To list other timm models, run: featuretl backbones PATTERN", err=True)


def _show_speeds(infos: list[BackboneInfo], cache: str | None, as_json: bool) -> None:
    """Time backbones, with random weights if theirs need a download, and print the speeds."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from featuretl.backbones.spec import BackboneSpec
    from featuretl.ranking.speed import time_backbone

    store = resolve_cache(cache)
    speeds = []
    for info in track(infos, "Measuring", console=Console(stderr=True), transient=True):
        weights = "auto" if info.available else "random"
        spec = BackboneSpec.of("featuretl backbones", info.name, weights=weights)
        speeds.append(time_backbone(spec, store=store if info.available else None))
    if as_json:
        print_json({"backbones": [dataclasses.asdict(speed) for speed in speeds]})
        return
    runtimes = list(dict.fromkeys(name for speed in speeds for name in speed.images_per_second))
    table = Table("backbone", *runtimes, "fastest", title="images per second, forward pass only")
    for speed in speeds:
        cells = [
            f"{found:,.1f}" if (found := speed.images_per_second.get(name)) else "-"
            for name in runtimes
        ]
        table.add_row(speed.name, *cells, speed.fastest)
    print_table(table)
