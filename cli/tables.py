"""Tables for people: as wide as the terminal, or wide enough where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from featuretl._engine import Failure

_SHOWN_FAILURES = 20
_WIDTH_OF_A_PIPE = 160


def print_table(table: Table, *, stderr: bool = False) -> None:
    """Print a table; long cells are folded, never cut."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console = Console(stderr=stderr, width=_WIDTH_OF_A_PIPE)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


def print_failures(failures: list[Failure], what: str) -> None:
    """Print the first failures, if there are any, on stderr; `what` they are is the title."""
    if not failures:
        return
    table = Table("image", "error", title=f"{len(failures)} {what}")
    for failure in failures[:_SHOWN_FAILURES]:
        table.add_row(Text(failure.name), Text(failure.message))
    if len(failures) > _SHOWN_FAILURES:
        table.add_row(f".. and {len(failures) - _SHOWN_FAILURES} more", "")
    print_table(table, stderr=True)
