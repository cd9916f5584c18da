"""``featuretl suggest``: which images to label next."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    cache_options,
    devices_option,
    json_option,
    resolve_cache,
    runtime_option,
    seed_option,
)

if TYPE_CHECKING:
    from featuretl.extraction.extraction import Extraction
    from featuretl.labelling.forecast import AccuracyForecast


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "-n", "n", type=click.IntRange(min=1), default=50, show_default=True, help="How many."
)
@click.option(
    "--strategy", type=click.Choice(["auto", "typiclust", "uncertainty", "coreset", "random"]),
    default="auto", show_default=True,
    help="auto: typical images first, uncertain ones from five labels per class on.",
)  # fmt: skip
@click.option(
    "--target-accuracy", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Say, too, how many labels this accuracy needs, by the learning curve of those there are.",
)  # fmt: skip
@click.option(
    "--backbone", default="tf_efficientnet_lite0", show_default=True, help="A timm model."
)
@click.option("--path-column", help="Column of a manifest that holds the paths.")
@click.option("--label-column", help="Column of a manifest that holds the labels.")
@seed_option
@devices_option
@runtime_option
@click.option("--n-jobs", type=int, help="Threads.  [default: one per core]")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), metavar="OUT.csv",
    help="Write paths and an empty column of labels, to fill in and to name the next time.",
)  # fmt: skip
@cache_options
@json_option
def suggest(
    photos: tuple[str, ...],
    n: int,
    strategy: str,
    target_accuracy: float | None,
    backbone: str,
    path_column: str | None,
    label_column: str | None,
    random_state: int,
    output: str | None,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Name the images of PHOTOS that are worth labelling next, the most useful first.

    PHOTOS are as in "featuretl extract". Images in class folders, or with a label in a manifest, are
    labelled already; the others are chosen from, each content once:

      featuretl suggest photos/ -n 50 -o labels.csv

      featuretl suggest labels.csv photos/ -n 50 -o more.csv --target-accuracy 0.95
    """
    from featuretl._core.text import printable
    from featuretl.extraction.extraction import extract
    from featuretl.extraction.outputs import check_output
    from featuretl.extraction.progress import embedding_bar
    from featuretl.images.sources import find_images, has_columns, join_images
    from featuretl.labelling.forecast import forecast_accuracy
    from featuretl.labelling.suggest import suggest_labels

    from .tables import print_failures

    target = None if output is None else check_output(output, (".csv",))
    columns: dict[str, Any] = {"path_column": path_column, "label_column": label_column}
    # Columns are those of the manifest of labels; beside it come the images without one.
    some = any(map(has_columns, photos))
    images = join_images(
        [find_images([one], **columns if has_columns(one) or not some else {}) for one in photos]
    )
    with embedding_bar(len(images)) as progress:
        extraction = extract(
            images.paths,
            backbone,
            store=resolve_cache(cache, no_cache),
            on_error="nan",
            progress=progress,
            **options,
        )
    print_failures(extraction.failures, "images that cannot be read")
    labels = images.labels or [None] * len(images)
    rows, labelled = _rows_of(extraction, labels)
    y = [labels[rows[i]] for i in labelled]
    X = extraction.to_numpy()[rows]
    found = suggest_labels(X, n, strategy, labelled=labelled, y=y, random_state=random_state)
    forecast = None
    if target_accuracy is not None:
        forecast = forecast_accuracy(X[labelled], y, random_state=random_state)
    paths = [str(Path(images.paths[rows[i]]).absolute()) for i in found]
    if target is not None:
        _write(target, paths)
    if as_json:
        facts: dict[str, Any] = {"suggested": paths, "output": output}
        counts = {"labelled": len(labelled), "unlabelled": len(rows) - len(labelled)}
        if forecast is not None and target_accuracy is not None:
            facts["forecast"] = _facts(forecast, target_accuracy)
        click.echo(json.dumps({**counts, **facts}))
        return
    for path in paths if target is None else []:
        click.echo(printable(path))
    where = "" if target is None else f", written to {printable(target)}"
    click.echo(
        f"{len(paths):,} of {len(rows) - len(labelled):,} images without a label{where}", err=True
    )
    if forecast is not None and target_accuracy is not None:
        click.echo(forecast.sentence(target_accuracy), err=True)


def _facts(forecast: AccuracyForecast, target_accuracy: float) -> dict[str, Any]:
    """Return what is forecast; null for more labels than can be told."""
    needed = forecast.labels_needed(target_accuracy)
    now = forecast.accuracy_at(forecast.n_labels)
    return {
        "accuracy": now._asdict(),
        "target_accuracy": target_accuracy,
        "labels_needed": {
            k: int(v) if math.isfinite(v) else None for k, v in needed._asdict().items()
        },
    }


def _rows_of(extraction: Extraction, labels: list[Any]) -> tuple[list[int], list[int]]:
    """Return the rows to look at, of each content one, and which of these have a label."""
    failed = {failure.index for failure in extraction.failures}
    first: dict[bytes, int] = {}
    # Of an image that is there twice the row with the label counts.
    for row in sorted(range(len(labels)), key=lambda row: labels[row] is None):
        if row not in failed:
            first.setdefault(bytes(extraction.keys[row]), row)
    rows = sorted(first.values())
    return rows, [place for place, row in enumerate(rows) if labels[row] is not None]


def _write(target: Path, paths: list[str]) -> None:
    from featuretl._core.files import replace_file

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([("path", "label"), *((path, "") for path in paths)])

    replace_file(target, write)
