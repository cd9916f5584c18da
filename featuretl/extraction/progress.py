"""A progress bar for extraction: images, images/s and time left, on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featuretl.extraction.engine import Progress, Statistics


@contextlib.contextmanager
def progress_bar(
    n_images: int, shown: bool = True, what: str = "images"
) -> Iterator[Progress | None]:
    """Show a bar while the context lasts; yield what to call with the statistics so far."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    ) as bar:
        task = bar.add_task("Embedding", total=n_images, rate="")

        def update(statistics: Statistics) -> None:
            rate = f"{statistics.images_per_second:,.0f} {what}/s"
            bar.update(task, total=statistics.images, completed=statistics.done, rate=rate)

        yield update


@contextlib.contextmanager
def image_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of `total` images on stderr; yield what to call with how many are done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    shown = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*shown, TimeRemainingColumn(), console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextlib.contextmanager
def step_bar(label: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar of `total` steps on stderr while the context lasts; yield what to call for each."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
