"""``featuretl report``: a page of metrics, failure cases and data-quality issues."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from featuretl._core.text import printable

from . import options
from .labels import columns_of_tasks, groups_of, truth_of
from .options import option
from .printing import print_failures, print_json

_COUNTS = {
    "mistakes": "mistakes",
    "label_errors": "probable label errors",
    "near_duplicates": "pairs of near-duplicates",
    "leaks": "near-duplicates of training images",
}
_LABELS = option("--label-column", group="Input", metavar="COLUMN,..", multiple=True,
    callback=options.one_or_tasks,
    help="Manifest column of labels; repeated for tasks of a multi-task MODEL.")  # fmt: skip


@options.command()
@click.argument("source", metavar="MODEL|EMBEDDINGS", type=options.FilePath(dir_okay=False))
@click.argument("photos", nargs=-1)
@options.output_option("OUT.html", "Self-contained HTML page.")
@option("--train", group="Input", multiple=True, metavar="PHOTOS",
    help="Training images of MODEL, for leaks and the learning curve; repeatable.")  # fmt: skip
@options.task_option
@options.manifest_options(label_column=_LABELS, group_column=options.groups_option)
@options.cv_option
@option("--threshold", group="Output", type=click.FloatRange(0, 1, min_open=True),
    metavar="SIMILARITY", default=0.9, help="Minimum similarity of near-duplicates.")  # fmt: skip
@options.n_bootstrap_option
@option("--explain/--no-explain", group="Output", default=True,
    help="Show the evidence for each mistake.")  # fmt: skip
@option("--title", group="Output", metavar="TEXT", help="Page title.")
@options.weights_option
@options.seed_option
@options.machine_options
@options.store_options
@options.json_option
def report(
    source: str,
    photos: tuple[str, ...],
    output: str,
    train: tuple[str, ...],
    columns: dict[str, Any],
    weights: str | None,
    machine: dict[str, Any],
    store: Any,
    title: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a report on MODEL and labelled PHOTOS not used in training.

    Given EMBEDDINGS, a file that "featuretl extract -o" wrote, the report is on out-of-fold
    predictions of a linear probe. This file holds paths and labels; PHOTOS select a subset of its
    images.
    """
    from featuretl._core.files import check_output

    check_output(output, (".html",))
    if source.endswith(".featuretl"):
        if not photos:
            raise click.UsageError("MODEL requires PHOTOS: name labelled images.")
        subject, about = _model(source, weights, photos, train, columns, cache=store, **machine)
        given["cache"] = store
    else:
        if train:
            raise click.UsageError(
                "--train requires a MODEL; drop it, embeddings are cross-validated."
            )
        subject, about = _embeddings(source, photos, columns, given["task"] == "regression")
    from featuretl.report.page import write_report

    found = _with_status(
        write_report, subject, path=output, **about,
        title=title or f"{Path(source).name}: a report", **given,
    )  # fmt: skip
    if as_json:
        print_json({**found, "output": output})
        return
    _show(found)
    click.echo(f"Report: {printable(output)}")


def _model(
    path: str,
    weights: str | None,
    photos: tuple[str, ...],
    train: tuple[str, ...],
    columns: dict[str, Any],
    **machine: Any,
) -> tuple[Any, dict[str, Any]]:
    """Return the model of a file, and the keyword arguments of `write_report`."""
    from featuretl.images.sources import find_images
    from featuretl.models.fitted import Fitted
    from featuretl.models.persistence import load_model, read_card
    from featuretl.prediction.predict import task_models, use_machine

    model = load_model(path, weights=weights)
    use_machine(model, **machine)
    columns = columns_of_tasks(task_models(model), columns)
    numbers = Fitted.of(model).classes is None
    more = _labelled(find_images(photos, **columns), numbers, columns)
    if train:
        training = find_images(train, **{**columns, "group_column": None})
        more["train"] = training.images, truth_of(training, numbers, columns["label_column"])
    return model, {**more, "card": read_card(path)}


def _embeddings(
    path: str, photos: tuple[str, ...], columns: dict[str, Any], numbers: bool
) -> tuple[Any, dict[str, Any]]:
    """Return embeddings of a file, all or of `photos`, and arguments of `write_report`."""
    from featuretl.exceptions import InputError
    from featuretl.extraction.outputs import load_embeddings
    from featuretl.images.crops import Crop
    from featuretl.images.sources import ImageList, find_images, refuse_columns

    if not photos:
        refuse_columns(path, **columns)
    columns = columns_of_tasks(None, columns)
    stored = load_embeddings(path)
    crops: Any = None
    if stored.boxes is not None:
        rows = zip(stored.paths, stored.boxes.tolist(), strict=True)
        crops = [None if math.isnan(sum(box)) else Crop(name, *box) for name, box in rows]
    if not photos:
        images = ImageList(stored.paths, stored.labels, crops=crops)
        return stored.embeddings, _labelled(images, numbers, columns)
    images = find_images(photos, **columns)
    row = {image: i for i, image in enumerate(ImageList(stored.paths, crops=crops).images)}
    missing = [
        name for name, image in zip(images.paths, images.images, strict=True) if image not in row
    ]
    if missing:
        raise InputError(
            f"{printable(path)!r} holds no embedding of {len(missing):,} of {len(images):,} "
            f"images, such as {printable(missing[0])!r}; pass PHOTOS as to featuretl extract."
        )
    X = stored.embeddings[[row[image] for image in images.images]]
    return X, _labelled(images, numbers, columns)


def _labelled(images: Any, numbers: bool, columns: dict[str, Any]) -> dict[str, Any]:
    """Return images, labels and groups as keyword arguments of `write_report`."""
    y = truth_of(images, numbers, columns["label_column"])
    return {"X": images.images, "y": y, "groups": groups_of(images)}


def _with_status(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the result of `call`, whose `progress` shows the current step on stderr."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    with console.status("Reading") as status:
        return call(*args, **kwargs, progress=status.update)


def _show(found: dict[str, Any]) -> None:
    from featuretl.extraction.statistics import Failure

    failures = [Failure(i, f["path"], f["error"]) for i, f in enumerate(found["failures"])]
    print_failures(failures, "images that are not in the report")
    if found["task"] != "several":
        _show_found(found)
        return
    for name, own in found["tasks"].items():
        _show_found(own, f"{printable(name)}: ")


def _show_found(found: dict[str, Any], of: str = "") -> None:
    from featuretl._core.statistics import interval_in_words

    for warning in found["warnings"]:
        click.echo(f"Warning: {of}{printable(warning)}", err=True)
    score = "accuracy" if found["task"] == "classification" else "r2"
    value, interval = found["scores"][score], found["intervals"].get(score)
    if value is not None and interval:
        value = f"{value:.3f} ({interval_in_words(*interval)})"
    click.echo(f"{of}{score}: {value} on {found['scored']:,} images")
    for kind, words in _COUNTS.items():
        if found[kind] is not None and (kind != "mistakes" or score == "accuracy"):
            click.echo(f"{of}{words}: {len(found[kind]):,}")
