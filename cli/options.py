"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from featuretl.store.store import EmbeddingStore

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
cache_option = click.option(
    "--cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where embeddings are kept.  [default: $FEATURETL_CACHE, or the user's cache directory]",
)


def cache_options(command: F) -> F:
    """Add --cache and --no-cache."""
    no_cache = click.option("--no-cache", is_flag=True, help="Keep no embeddings.")
    return cache_option(no_cache(command))


def resolve_cache(cache: str | None, no_cache: bool) -> EmbeddingStore | None:
    """Return the store that --cache and --no-cache mean."""
    from featuretl.store.store import resolve_store

    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other.")
    return resolve_store(None if no_cache else cache or "auto", "featuretl")
