"""``featuretl evaluate``: score a model file on labelled images."""

from __future__ import annotations

import math
from typing import Any

from featuretl._core.text import printable

from . import options
from .printing import print_failures, print_json, print_table


@options.command()
@options.model_argument
@options.photos_argument
@options.weights_option
@options.manifest_options(
    label_column=options.label_columns_option,
    label_separator=options.label_separator_option,
    group_column=options.groups_option,
)
@options.machine_options
@options.n_bootstrap_option
@options.store_options
@options.json_option
def evaluate(
    model: str,
    photos: tuple[str, ...],
    weights: str | None,
    columns: dict[str, Any],
    machine: dict[str, Any],
    n_bootstrap: int,
    store: Any,
    as_json: bool,
) -> None:
    """Score MODEL on labelled PHOTOS, with 95% intervals.

    PHOTOS are class folders, or .csv or .parquet manifests. Unreadable images are listed, not
    scored. Each task of a multi-task model is scored on the images that have its label, in the
    column of its name; --label-column selects tasks.
    """
    from featuretl._core.progress import progress_bar
    from featuretl.images.sources import find_images
    from featuretl.models.fitted import Fitted
    from featuretl.models.persistence import load_model
    from featuretl.prediction.predict import task_models, use_machine

    from .labels import columns_of_tasks, groups_of, truth_of

    loaded = load_model(model, weights=weights)
    images = find_images(photos, **columns_of_tasks(task_models(loaded), columns))
    y = truth_of(images, Fitted.of(loaded).classes is None, columns["label_column"])
    from featuretl.prediction.evaluate import evaluate_model

    use_machine(loaded, cache=store, **machine)
    with progress_bar("Predicting", len(images)) as progress:
        report = evaluate_model(
            loaded, images.images, y,
            groups=groups_of(images), n_bootstrap=n_bootstrap, progress=progress,
        )  # fmt: skip
    print_failures(report.failures, "unreadable images, which are not scored")
    if as_json:
        print_json(_facts(report))
        return
    if report.task != "several":
        _show_scores(report, f"{report.n:,} images")
        return
    for name, own in report.tasks.items():
        _show_scores(own, f"{printable(name)}: {own.n:,} images")


def _facts(report: Any) -> dict[str, Any]:
    failures = [{"path": f.name, "error": f.message} for f in report.failures]
    return {**report, "failures": failures}


def _show_scores(report: Any, title: str) -> None:
    from rich.table import Table
    from rich.text import Text

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
