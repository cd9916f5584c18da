"""``featuretl report``: one page of metrics, failure cases and data-quality issues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featuretl._core.text import printable

from . import options
from .labels import columns_of_tasks, groups_of, truth_of
from .printing import print_failures, print_json

_COUNTED = {
    "mistakes": "mistakes",
    "label_errors": "probable label errors",
    "near_duplicates": "pairs of near-duplicates",
    "leaks": "pairs of an image and one of training",
}


_LABELS = click.option(
    "--label-column", multiple=True, callback=options.one_or_tasks,
    help="Column of a manifest that holds the classes or regression targets; for a MODEL of several "
    "tasks the tasks to report on.  [default: for each task the column of its name]",
)  # fmt: skip


@click.command()
@click.argument("source", metavar="MODEL|EMBEDDINGS", type=options.FilePath(dir_okay=False))
@click.argument("photos", nargs=-1)
@options.output_option("OUT.html", "Write the page: one file that loads nothing from anywhere.")
@click.option(
    "--train", multiple=True, metavar="PHOTOS",
    help="Training images of MODEL: shows leaks, and gives the learning curve.",
)  # fmt: skip
@options.task_option("Task of EMBEDDINGS; regression: the labels are numbers.")
@options.manifest_options(label_column=_LABELS, group_column=options.groups_option)
@options.cv_option("Folds of the linear probe.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True), default=0.9, show_default=True,
    help="Least similarity of two images that are near-duplicates.",
)  # fmt: skip
@options.n_bootstrap_option
@click.option(
    "--explain/--no-explain", default=True, show_default=True,
    help="Show where the evidence for mistakes lies.",
)  # fmt: skip
@click.option("--title", help="Page title.")
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
    """Write a page on MODEL and labelled PHOTOS that had no part in training.

    Instead of a model, the EMBEDDINGS that "featuretl extract -o" wrote: the page is about a linear
    probe's out-of-fold predictions then. Their file has paths and labels; PHOTOS, if given, select the
    images to report on.
    """
    from featuretl.extraction.outputs import check_output
    from featuretl.report.page import write_report

    check_output(output, (".html",))
    if source.endswith(".featuretl"):
        if not photos:
            raise click.UsageError("MODEL needs PHOTOS to report on.")
        subject, about = _model(source, weights, photos, train, columns, cache=store, **machine)
        given["cache"] = store
    else:
        if train:
            raise click.UsageError("--train belongs to a MODEL; embeddings are divided into folds.")
        subject, about = _embeddings(source, photos, columns, given["task"] == "regression")
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
    """Return the model of a file, and what `write_report` takes besides."""
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
        learnt = find_images(train, **{**columns, "group_column": None})
        more["train"] = learnt.paths, truth_of(learnt, numbers, columns["label_column"])
    return model, {**more, "card": read_card(path)}


def _embeddings(
    path: str, photos: tuple[str, ...], columns: dict[str, Any], numbers: bool
) -> tuple[Any, dict[str, Any]]:
    """Return the embeddings of a file, or those of `photos`, and what `write_report` takes besides."""
    from featuretl.exceptions import InputError
    from featuretl.extraction.outputs import load_embeddings
    from featuretl.images.sources import ImageList, find_images, refuse_columns

    if not photos:
        refuse_columns(path, **columns)
    columns = columns_of_tasks(None, columns)
    stored = load_embeddings(path)
    if not photos:
        images = ImageList(stored.paths, stored.labels)
        return stored.embeddings, _labelled(images, numbers, columns)
    images = find_images(photos, **columns)
    row = {name: i for i, name in enumerate(stored.paths)}
    missing = [name for name in images.paths if name not in row]
    if missing:
        raise InputError(
            f"{printable(path)!r} holds no embedding of {len(missing):,} of {len(images):,} images, such "
            f"as {printable(missing[0])!r}; name PHOTOS as they were named to featuretl extract."
        )
    X = stored.embeddings[[row[name] for name in images.paths]]
    return X, _labelled(images, numbers, columns)


def _labelled(images: Any, numbers: bool, columns: dict[str, Any]) -> dict[str, Any]:
    """Return images, labels and groups as `write_report` takes them."""
    y = truth_of(images, numbers, columns["label_column"])
    return {"images": images.paths, "y": y, "groups": groups_of(images)}


def _with_status(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call with `progress`, which shows what is being done on stderr."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    with console.status("Reading") as status:
        return call(*args, **kwargs, progress=status.update)


def _show(found: dict[str, Any]) -> None:
    from featuretl.extraction.engine import Failure

    failures = [Failure(i, f["path"], f["error"]) for i, f in enumerate(found["failures"])]
    print_failures(failures, "images that are not in it")
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
    for kind, words in _COUNTED.items():
        if found[kind] is not None and (kind != "mistakes" or score == "accuracy"):
            click.echo(f"{of}{words}: {len(found[kind]):,}")
