"""``featuretl demo``: the whole way on handwritten digits."""

from __future__ import annotations

import json

import click

from .options import cache_options, json_option, resolve_cache


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False), default="featuretl-demo/digits",
    show_default=True, help="Where the images are written.",
)  # fmt: skip
@cache_options
@json_option
def demo(folder: str, cache: str | None, no_cache: bool, as_json: bool) -> None:
    """Write 1,797 handwritten digits as images, embed them, and train and test a linear head."""
    from rich.table import Table

    from featuretl._progress import progress_bar
    from featuretl._validation import printable
    from featuretl.demo import run_demo

    from .tables import print_table

    store = resolve_cache(cache, no_cache)
    with progress_bar(1797) as progress:
        result = run_demo(folder, store=store, progress=progress)
    statistics = result.extraction.statistics
    if as_json:
        facts = {
            "images": statistics.images,
            "cached": statistics.cached,
            "embedded": statistics.embedded,
            "accuracy": result.accuracy,
            "report": result.report,
            "cache": store and str(store.path),
        }
        click.echo(json.dumps(facts))
        return
    table = Table("digit", "precision", "recall", "F1", "images")
    for name in map(str, range(10)):
        row = result.report[name]
        scores = (f"{row[score]:.3f}" for score in ("precision", "recall", "f1-score"))
        table.add_row(name, *scores, f"{row['support']:.0f}")
    click.echo(f"Images: {printable(folder)}, one folder per digit.")
    click.echo(
        f"Embedded {statistics.embedded} images, {statistics.cached} came from the cache, in "
        f"{statistics.seconds:.1f} s"
        + (": nothing was computed again." if not statistics.embedded else ".")
    )
    print_table(table)
    click.echo(
        f"Held-out accuracy: {result.accuracy:.3f} on {result.n_test} images "
        f"(linear head trained on the other {result.n_train})."
    )
    click.echo(f"Cache: {printable(store.path) if store else 'none'}")
