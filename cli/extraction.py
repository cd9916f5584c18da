"""How commands run an extraction and print its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .printing import print_costs, print_failures, print_json, print_summary

if TYPE_CHECKING:
    from featuretl.extraction.statistics import Statistics
    from featuretl.store.store import EmbeddingStore

E = TypeVar("E")


def cached_in(store: EmbeddingStore | None) -> str | None:
    """Return the folder in which a store caches embeddings, None if it caches nothing."""
    return str(store.path) if store is not None and store.keeps else None


def run_extraction(
    call: Callable[..., E], sources: Any, store: EmbeddingStore | str | None, **options: Any
) -> E:
    """Return the result of `call`, `extract` or `extract_shards`; show a progress bar meanwhile.

    An interrupt prints the number of new embeddings, and whether they are cached.
    """
    from featuretl.extraction.statistics import embedding_bar

    last: list[Statistics] = []
    try:
        with embedding_bar(0) as show:

            def progress(statistics: Statistics) -> None:
                last[:] = [statistics]
                show(statistics)

            return call(sources, store=store, on_error="nan", progress=progress, **options)
    except KeyboardInterrupt:
        embedded = last[0].embedded if last else 0
        cached = isinstance(store, str) or cached_in(store) is not None
        outcome = "are cached; run the command again to resume" if cached else "are not cached"
        click.echo(f"Interrupted. {embedded} new embeddings {outcome}.", err=True)
        raise


def finish(
    extraction: Any, save: Callable[[], Any], facts: dict[str, Any], failures: list[dict[str, Any]],
    *, what: str, on_error: str, as_json: bool, profile: bool,
) -> None:  # fmt: skip
    """Write the output of an extraction with `save` unless it failed, and print a summary.

    `facts` are printed beside the statistics; their `output` is None if there is nothing to write.
    `failures` is `extraction.failures` as JSON, `what` the title of their table.
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
