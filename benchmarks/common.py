"""What the benchmarks share: the folder of real images, its groups, and tables of results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Table = list[dict[str, Any]]


def signers(paths: Any, target: Any) -> Any:
    """Return the signer (n,) of each photograph; file numbers run through one signer's digits."""
    number = np.array([int(re.findall(r"\d+", Path(path).stem)[-1]) for path in paths])
    order = np.lexsort((target, number))
    digit, step = target[order].astype(int), np.diff(number[order], prepend=0)
    starts = (np.diff(digit, prepend=10) <= 0) | (step > 20)
    groups = np.empty(len(order), int)
    groups[order] = np.cumsum(starts)
    return groups


def show(table: Table, as_json: bool) -> None:
    """Print a table, or JSON."""
    if as_json:
        click.echo(json.dumps(table, indent=1))
        return
    cells = [[*table[0]], *([_cell(value) for value in row.values()] for row in table)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
