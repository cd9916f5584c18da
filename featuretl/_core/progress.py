"""A progress bar on stderr: count, rate and remaining time."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(
    label: str, total: int, unit: str = "", *, shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Show a bar during the context; it shows a rate if it has a `unit`, such as "images".

    Yields ``update(done=None, total=None)``: None increments the count, and keeps the total.
    """
    if not shown:
        yield lambda done=None, total=None: None
        return
    from rich.console import Console

    console = Console(file=sys.stderr)
    if console.is_jupyter:  # rich needs ipywidgets there; tqdm works without them
        with _notebook_bar(label, total, unit) as update:
            yield update
        return
    from rich import progress

    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(label, total=total, rate="")
        began = time.monotonic()

        def update(done: float | None = None, total: int | None = None) -> None:
            done = done if done is not None else bar.tasks[0].completed + 1
            per_second = done / max(time.monotonic() - began, 1e-9)
            rate = f"{per_second:,.0f} {unit}/s" if unit else ""
            bar.update(task, total=total, completed=done, rate=rate)

        yield update


@contextlib.contextmanager
def _notebook_bar(label: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm asks for ipywidgets, and falls back to text
        from tqdm.auto import tqdm
    with tqdm(desc=label, total=total, unit=f" {unit}") as bar:

        def update(done: float | None = None, total: int | None = None) -> None:
            bar.total = bar.total if total is None else total
            bar.update(1 if done is None else done - bar.n)

        yield update
