"""Tables for people: as wide as the terminal, or wide enough where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 160


def print_table(table: Table, *, stderr: bool = False) -> None:
    """Print a table; long cells are folded, never cut."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=_WIDTH_OF_A_PIPE)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)
