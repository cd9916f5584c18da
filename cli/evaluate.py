"""``featuretl evaluate``: the scores of a model file on labelled images."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from .options import cache_options, json_option, label_options, model_options, resolve_cache


@click.command()
@model_options
@label_options
@click.option(
    "--n-bootstrap", type=click.IntRange(min=0), default=1000, show_default=True,
    help="Resamples for the intervals of log-loss and regression scores; 0: no intervals.",
)  # fmt: skip
@click.option(
    "--groups", metavar="COLUMN",
    help="Column of a manifest; images of one group count as one draw in the intervals.",
)  # fmt: skip
@cache_options
@json_option
def evaluate(
    model: str,
    photos: tuple[str, ...],
    weights: str | None,
    device: str,
    n_jobs: int | None,
    path_column: str | None,
    label_column: str | list[str] | tuple[str, ...] | None,
    label_separator: str | None,
    n_bootstrap: int,
    groups: str | None,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Score MODEL on PHOTOS whose classes, or numbers, are known, with 95% intervals.

    Images that cannot be read are named, and not scored. Of a model of several tasks each is scored on
    the images that have its label: all tasks, by their columns, or those of --label-column.
    """
    from featuretl.extraction.progress import image_bar
    from featuretl.images.sources import find_images
    from featuretl.models.persistence import load_model
    from featuretl.prediction.evaluate import evaluate_model
    from featuretl.prediction.predict import task_models, use_machine

    from .labels import groups_of, task_columns, truth_of
    from .tables import print_failures

    loaded = load_model(model, weights=weights)
    tasks = task_columns(task_models(loaded), label_column, label_separator)
    images = find_images(
        photos,
        path_column=path_column,
        label_column=None if tasks else label_column,
        label_separator=label_separator,
        task_columns=tasks,
        group_column=groups,
    )
    column = label_column if isinstance(label_column, str) else None
    y = truth_of(images, not hasattr(loaded, "classes_"), column)
    store = resolve_cache(cache, no_cache)
    use_machine(loaded, cache=store, device=device, n_jobs=n_jobs)
    with image_bar("Predicting", len(images)) as progress:
        report = evaluate_model(
            loaded, images.paths, y,
            groups=groups_of(images), n_bootstrap=n_bootstrap, progress=progress,
        )  # fmt: skip
    print_failures(report.failures, "images that are not scored")
    if as_json:
        click.echo(json.dumps(_facts(report), allow_nan=False))
        return
    _show(report)


def _facts(report: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    failures = [{"path": f.name, "error": f.message} for f in report.failures]
    return {**plain(dict(report, failures=None)), "failures": failures}


def _show(report: Any) -> None:
    from featuretl._core.text import printable

    if report.task != "several":
        _show_scores(report, f"{report.n:,} images")
        return
    for name, own in report.tasks.items():
        _show_scores(own, f"{printable(name)}: {own.n:,} images")


def _show_scores(report: Any, title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from featuretl._core.text import printable

    from .tables import print_table

    table = Table("score", "value", "95% interval", title=Text(title))
    for name, value in report.scores.items():
        low, high = report.intervals.get(name, (math.nan, math.nan))
        interval = f"{low:.3f} to {high:.3f}" if math.isfinite(high - low) else ""
        table.add_row(name.replace("_", " "), f"{value:.3f}", interval)
    print_table(table)
    if not report.per_class:
        return
    table = Table("class", "precision", "recall", "F1", "images")
    for label, row in report.per_class.items():
        scores = (f"{row[score]:.3f}" for score in ("precision", "recall", "f1"))
        table.add_row(Text(printable(label)), *scores, f"{row['support']:,}")
    print_table(table)
