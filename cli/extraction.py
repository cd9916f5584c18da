"""One way for commands to run an extraction, and to print what it did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .printing import print_costs, print_failures, print_json, print_summary

if TYPE_CHECKING:
    from featuretl.extraction.engine import Statistics
    from featuretl.store.store import EmbeddingStore

E = TypeVar("E")


def cached_in(store: EmbeddingStore | None) -> str | None:
    """Return the folder in which a store caches embeddings; None where nothing is cached."""
    return str(store.path) if store is not None and store.keeps else None


def run_extraction(
    call: Callable[..., E], sources: Any, store: EmbeddingStore | str | None, **options: Any
) -> E:
    """Return what `call`, `extract` or `extract_shards`, returns; show a bar while it runs.

    Ctrl-C prints how many new embeddings there are, and whether they are cached.
    """
    from featuretl.extraction.engine import embedding_bar

    last: list[Statistics] = []
    try:
        with embedding_bar(0) as show:

            def progress(statistics: Statistics) -> None:
                last[:] = [statistics]
                show(statistics)

            return call(sources, store=store, on_error="nan", progress=progress, **options)
    except KeyboardInterrupt:
        embedded = last[0].embedded if last else 0
        kept = isinstance(store, str) or cached_in(store) is not None
        outcome = "are kept: run the command again to go on" if kept else "are not kept"
        click.echo(f"Interrupted. {embedded} new embeddings {outcome}.", err=True)
        raise


def finish(
    extraction: Any, save: Callable[[], Any], facts: dict[str, Any], failures: list[dict[str, Any]],
    *, what: str, on_error: str, as_json: bool, profile: bool,
) -> None:  # fmt: skip
    """Save an extraction unless it failed, and print what was done.

    Parameters
    ----------
    extraction : Extraction or ShardedExtraction
    save : callable
        Writes the output.
    facts : dict (JSON)
        What is printed besides the statistics; `output` is None where nothing is written.
    failures : list of dict (JSON)
        `extraction.failures` for ``--json``.
    what : str
        What the failures are, in words.
    """

    statistics = extraction.statistics
    print_failures(extraction.failures, what)
    failed = bool(extraction.failures) and on_error == "raise"
    if failed:
        facts = {**facts, "output": None}
    elif facts["output"] is not None:
        save()
    facts = {
        **dataclasses.asdict(statistics),
        "images_per_second": statistics.images_per_second,
        "backbone": extraction.recipe["backbone"]["name"],
        **facts,
    }
    if as_json:
        print_json({**facts, "failures": failures})
    else:
        print_summary(facts, statistics)
        if profile:
            print_costs(statistics)
    if failed:
        raise click.exceptions.Exit(1)
