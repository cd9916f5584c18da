"""``featuretl suggest``: choose the images to label next."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featuretl._core.text import printable

from . import options
from .extraction import run_extraction
from .options import option
from .printing import print_failures, print_json

if TYPE_CHECKING:
    from featuretl.extraction.extraction import Extraction
    from featuretl.images.sources import ImageList
    from featuretl.labelling.forecast import AccuracyForecast


@options.command()
@options.photos_argument
@option("-n", "n", group="Output", type=click.IntRange(min=1), metavar="N", default=50,
    help="Number of images to suggest.")  # fmt: skip
@option("--strategy", group="Model", default="auto",
    type=click.Choice(["auto", "typiclust", "uncertainty", "coreset", "random"]),
    help="auto is typiclust, and uncertainty from five labels per class on.")  # fmt: skip
@option("--target-accuracy", group="Output", metavar="ACCURACY",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Also estimate the number of labels that this accuracy needs.")  # fmt: skip
@options.backbone_option
@options.manifest_options(label_column=options.label_column_option)
@options.seed_option
@options.runtime_options
@options.output_option(
    "OUT.csv", "Table of paths with an empty column of labels to fill in.", required=False
)
@options.store_options
@options.json_option
def suggest(
    photos: tuple[str, ...],
    n: int,
    strategy: str,
    target_accuracy: float | None,
    backbone: str,
    columns: dict[str, Any],
    random_state: int,
    machine: dict[str, Any],
    output: str | None,
    store: Any,
    as_json: bool,
) -> None:
    """Suggest which PHOTOS to label next, the most useful first.

    PHOTOS are as in "featuretl extract". Class folders and manifests label images; the suggestions
    are among the unlabelled ones, without duplicates:

      featuretl suggest photos/ -n 50 -o labels.csv

      featuretl suggest labels.csv photos/ -n 50 -o more.csv --target-accuracy 0.95
    """
    from featuretl._core.files import check_output
    from featuretl.images.crops import box_columns, or_files

    target = None if output is None else check_output(output, (".csv",))
    images = _images(photos, columns)
    from featuretl.extraction.extraction import extract
    from featuretl.labelling.forecast import forecast_accuracy
    from featuretl.labelling.suggest import suggest_labels

    given = images.images
    extraction = run_extraction(extract, given, store, backbone=backbone, **machine)
    print_failures(extraction.failures, "unreadable images")
    labels = images.labels or [None] * len(images)
    rows, labelled = _rows_of(extraction, labels)
    y = [labels[rows[i]] for i in labelled]
    X = extraction.to_numpy()[rows]
    found = suggest_labels(X, n, strategy, labelled=labelled, y=y, random_state=random_state)
    forecast = None
    if target_accuracy is not None:
        groups = or_files(None, [given[rows[i]] for i in labelled])
        curve = forecast_accuracy(X[labelled], y, groups=groups, random_state=random_state)
        forecast = curve, target_accuracy
    paths = [str(Path(images.paths[rows[i]]).absolute()) for i in found]
    boxes = box_columns([given[rows[i]] for i in found])
    if target is not None:
        _write(target, {"path": paths, **boxes, "label": [""] * len(paths)})
    facts: dict[str, Any] = {
        "labelled": len(labelled),
        "unlabelled": len(rows) - len(labelled),
        "suggested": paths,
        **({"boxes": list(zip(*boxes.values(), strict=True))} if boxes else {}),
        "output": output,
    }
    if as_json:
        print_json(facts | ({"forecast": _facts(*forecast)} if forecast else {}))
    else:
        _show(facts, forecast)


def _images(photos: tuple[str, ...], columns: dict[str, Any]) -> ImageList:
    """Return the images of PHOTOS; `columns` apply to the manifests, if there are any."""
    from featuretl.images.sources import find_images, has_columns, join_images

    some = any(map(has_columns, photos))
    return join_images(
        [find_images([one], **columns if has_columns(one) or not some else {}) for one in photos]
    )


def _show(facts: dict[str, Any], forecast: tuple[AccuracyForecast, float] | None) -> None:
    paths, output = facts["suggested"], facts["output"]
    boxes = facts.get("boxes", [()] * len(paths))
    for path, box in zip(paths, boxes, strict=True) if output is None else ():
        click.echo(" ".join([printable(path), *map(str, box)]))
    where = "" if output is None else f", written to {printable(output)}"
    count = f"{len(paths):,} of {facts['unlabelled']:,} unlabelled images"
    click.echo(count + where, err=True)
    if forecast:
        curve, target_accuracy = forecast
        click.echo(curve.sentence(target_accuracy), err=True)


def _facts(forecast: AccuracyForecast, target_accuracy: float) -> dict[str, Any]:
    """Return the forecast as JSON; null stands for more labels than it can estimate."""
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
    """Return a row for each distinct image, and the positions in them of labelled ones."""
    failed = {failure.index for failure in extraction.failures}
    first: dict[bytes, int] = {}
    # Labelled rows come first, so that one of them represents identical images.
    for row in sorted(range(len(labels)), key=lambda row: labels[row] is None):
        if row not in failed:
            first.setdefault(bytes(extraction.keys[row]), row)
    rows = sorted(first.values())
    return rows, [place for place, row in enumerate(rows) if labels[row] is not None]


def _write(target: Path, table: dict[str, list[Any]]) -> None:
    from featuretl._core.files import replace_file

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])

    replace_file(target, write)
