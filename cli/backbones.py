"""``featuretl backbones``: list backbones and the sources of their weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import printable

from .options import cache_option, command, json_option, option, resolve_cache
from .printing import print_json, print_table

if TYPE_CHECKING:
    from featuretl.backbones.listing import BackboneInfo


@command()
@click.argument("pattern", required=False)
@option("--time", "timed", group="Machine", is_flag=True,
    help="Measure the speed of each runtime, about a minute per backbone.")  # fmt: skip
@option("--recommended", group="Input", is_flag=True,
    help="List a backbone for each of several purposes, with its GFLOPs per image.")  # fmt: skip
@cache_option
@json_option
def backbones(
    pattern: str | None, timed: bool, recommended: bool, cache: str | None, as_json: bool
) -> None:
    """List packaged backbones, or timm models that match PATTERN.

    PATTERN is a shell pattern ("resnet*", "*dinov2*"), a part of a name, hf-hub:ORG/MODEL or
    local-dir:FOLDER. Commands take the listed names as --backbone; with --weights FILE or random they download nothing. The cache saves the
    speeds that --time measures: extractions of 1,000 or more images use the fastest runtime.
    """
    from rich.console import Console
    from rich.progress import track

    from featuretl.backbones.catalog import RECOMMENDED
    from featuretl.backbones.listing import backbone_names, describe_backbones
    from featuretl.exceptions import InputError

    if recommended and pattern is not None:
        raise click.UsageError("PATTERN and --recommended exclude each other; drop one of them.")
    purposes = {one.name: one for one in RECOMMENDED if recommended}
    names = list(purposes) or backbone_names(pattern)
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
    rows = [
        dataclasses.asdict(info) | (dataclasses.asdict(purposes[info.name]) if recommended else {})
        for info in described
    ]
    if as_json:
        print_json({"backbones": rows})
        return
    _show(rows)
    if pattern is None and not recommended:
        click.echo("To list other timm models, run: featuretl backbones PATTERN", err=True)


def _show(rows: list[dict[str, Any]]) -> None:
    """Print descriptions of backbones, with their purposes if they have some."""
    from rich.table import Table
    from rich.text import Text

    extra = [name for name in ("purpose", "gflops") if name in rows[0]]
    table = Table("backbone", "weights", "license", "embedding", "input", "parameters", *extra)
    for row in rows:
        cells = [
            row["name"],
            f"{row['source']}: {row['note']}" if row["note"] else row["source"],
            row["license"],
            row["n_features"],
            f"{row['input_size'][1]} x {row['input_size'][2]}",
            f"{row['n_parameters'] / 1e6:.1f} M",
            *(row[name] for name in extra),
        ]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    print_table(table)


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
