"""Tables and JSON that commands print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import plain_json, printable

if TYPE_CHECKING:
    from rich.table import Table

    from featuretl.extraction.statistics import Failure, Statistics

_SHOWN_FAILURES = 20
_WIDTH_OF_A_PIPE = 160


def print_json(facts: dict[str, Any]) -> None:
    """Print an object as one line of JSON; null stands for NaN and infinity."""
    click.echo(json.dumps(plain_json(facts), allow_nan=False))


def print_table(table: Table, *, stderr: bool = False) -> None:
    """Print a table as wide as the terminal, or 160 columns; long cells are folded, never cut."""
    from rich.console import Console

    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=_WIDTH_OF_A_PIPE)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


def print_failures(failures: list[Failure], what: str) -> None:
    """Print the first failures, if there are any, to stderr, in a table with the title `what`."""
    from rich.table import Table
    from rich.text import Text

    from featuretl.extraction.extraction import most_common

    if not failures:
        return
    table = Table("image", "error", title=f"{len(failures)} {what}")
    for failure in failures[:_SHOWN_FAILURES]:
        table.add_row(Text(failure.name), Text(failure.message))
    if len(failures) > _SHOWN_FAILURES:
        more = f".. and {len(failures) - _SHOWN_FAILURES} more"
        table.add_row(more, Text(most_common(failures)))
    print_table(table, stderr=True)


def print_summary(facts: dict[str, Any], statistics: Statistics) -> None:
    """Print the facts of an extraction, one per line."""
    from rich.table import Table
    from rich.text import Text

    shown = {name: value for name, value in facts.items() if name != "costs"}
    shown["seconds"] = f"{statistics.seconds:.2f}"
    shown["images_per_second"] = f"{statistics.images_per_second:,.1f}"
    table = Table(show_header=False, box=None)
    for name, value in shown.items():
        table.add_row(
            name.replace("_per_", "/").replace("_", " "),
            Text("-" if value is None else printable(value)),
        )
    print_table(table)


def print_costs(statistics: Statistics) -> None:
    """Print the processor time of each stage of an extraction."""
    from rich.table import Table

    if not statistics.costs:
        click.echo("No image was read: no file has changed since it was embedded.")
        return
    total = sum(statistics.costs.values())
    images = max(1, statistics.embedded)
    table = Table("stage", "core ms per new image", "fraction")
    for stage, seconds in [*statistics.costs.items(), ("total", total)]:
        table.add_row(stage, f"{1000 * seconds / images:.3f}", f"{seconds / total:.1%}")
    print_table(table)
