"""``featuretl report``: one page on how good a model is, where it fails and what ails its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .labels import groups_of, task_columns, truth_of
from .options import cache_options, json_option, one_or_tasks, resolve_cache, seed_option

if TYPE_CHECKING:
    from featuretl.images.sources import ImageList

_COUNTED = {
    "mistakes": "mistakes",
    "label_errors": "probable label errors",
    "near_duplicates": "pairs of near-duplicates",
    "leaks": "pairs of an image and one of training",
}


@click.command()
@click.argument("source", metavar="MODEL|EMBEDDINGS", type=click.Path(dir_okay=False))
@click.argument("photos", nargs=-1)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), required=True, metavar="OUT.html",
    help="Write the page: one file that loads nothing from anywhere.",
)  # fmt: skip
@click.option(
    "--train", multiple=True, metavar="PHOTOS",
    help="What MODEL was trained on: shows leaks, and learns the learning curve from it.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(["auto", "classification", "regression"]),
    default="auto", show_default=True, help="Of EMBEDDINGS; regression: the labels are numbers.",
)  # fmt: skip
@click.option("--path-column", help="Column of a manifest that holds the paths.")
@click.option(
    "--label-column", multiple=True, callback=one_or_tasks,
    help="Column of a manifest that holds the classes, or numbers; of a MODEL of several tasks those "
    "to report on.  [default: of each task the column of its name]",
)  # fmt: skip
@click.option(
    "--groups", metavar="COLUMN",
    help="Column of a manifest; images of one group are held out together.",
)  # fmt: skip
@click.option("--cv", type=click.IntRange(min=2), default=5, show_default=True, help="Folds of the linear probe.")  # fmt: skip
@click.option(
    "--threshold", type=click.FloatRange(0, 1, min_open=True), default=0.9, show_default=True,
    help="From which similarity on two images are near-duplicates.",
)  # fmt: skip
@click.option(
    "--n-bootstrap", type=click.IntRange(min=0), default=1000, show_default=True,
    help="Resamples for the intervals of log-loss and regression scores; 0: no intervals.",
)  # fmt: skip
@click.option(
    "--explain/--no-explain", default=True, show_default=True,
    help="Show where the evidence for mistakes lies.",
)  # fmt: skip
@click.option("--title", help="Of the page.")
@click.option(
    "--weights", type=click.Path(dir_okay=False), metavar="FILE",
    help="The backbone's weights, where the model was trained on a local file of them.",
)  # fmt: skip
@seed_option
@click.option("--device", default="auto", show_default=True, help="A torch device.")
@click.option("--n-jobs", type=int, help="Threads.  [default: one per core]")
@cache_options
@json_option
def report(
    source: str,
    photos: tuple[str, ...],
    output: str,
    train: tuple[str, ...],
    path_column: str | None,
    label_column: str | list[str] | tuple[str, ...] | None,
    groups: str | None,
    weights: str | None,
    device: str,
    n_jobs: int | None,
    title: str | None,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a page on MODEL and labelled PHOTOS that had no part in training.

    Instead of a model, the EMBEDDINGS that "featuretl extract -o" wrote: the page is about a linear
    probe's out-of-fold predictions then. Their file has paths and labels; PHOTOS, if given, are those of
    its images to report on.
    """
    from featuretl._core.text import printable
    from featuretl.extraction.outputs import check_output
    from featuretl.images.sources import find_images, refuse_columns
    from featuretl.prediction.predict import task_models
    from featuretl.report.page import write_report

    check_output(output, (".html",))
    store = resolve_cache(cache, no_cache)
    title = title or f"{Path(source).name}: a report"
    is_model = source.endswith(".featuretl")
    if is_model and not photos:
        raise click.UsageError("MODEL needs PHOTOS to report on.")
    if train and not is_model:
        raise click.UsageError("--train belongs to a MODEL; embeddings are divided into folds.")
    if not photos:
        refuse_columns(
            source, path_column=path_column, label_column=label_column, group_column=groups
        )
    subject: Any = None
    if is_model:
        subject, card = _model(source, weights, cache=store, device=device, n_jobs=n_jobs)
        options |= {"card": card, "cache": store}
    tasks = task_columns(task_models(subject) if is_model else None, label_column)
    columns: dict[str, Any] = {
        "path_column": path_column,
        "label_column": None if tasks else label_column,
        "task_columns": tasks,
    }
    images = find_images(photos, **columns, group_column=groups) if photos else None
    numbers = options["task"] == "regression"
    if is_model:
        numbers = not hasattr(subject, "classes_")
        learnt = find_images(train, **columns) if train else None
        options["train"] = learnt and (learnt.paths, truth_of(learnt, numbers))
    else:
        subject, images = _embeddings(source, images)
    assert images is not None  # nosec B101
    found = _with_status(
        write_report, subject, images.paths, truth_of(images, numbers), output,
        groups=groups_of(images), title=title, **options,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps({**found, "output": output}, allow_nan=False))
        return
    _show(found)
    click.echo(f"Report: {printable(output)}")


def _model(path: str, weights: str | None, **machine: Any) -> tuple[Any, Any]:
    from featuretl.models.persistence import load_model, read_card
    from featuretl.prediction.predict import use_machine

    model = load_model(path, weights=weights)
    use_machine(model, **machine)
    return model, read_card(path)


def _embeddings(path: str, images: ImageList | None) -> tuple[Any, ImageList]:
    """Return the embeddings of a file, and their images, or those of `images`."""
    from featuretl._core.text import printable
    from featuretl.exceptions import InputError
    from featuretl.extraction.outputs import load_embeddings
    from featuretl.images.sources import ImageList

    stored = load_embeddings(path)
    if images is None:
        return stored.embeddings, ImageList(stored.paths, stored.labels)
    row = {name: i for i, name in enumerate(stored.paths)}
    missing = [name for name in images.paths if name not in row]
    if missing:
        raise InputError(
            f"{printable(path)!r} holds no embedding of {len(missing):,} of {len(images):,} images, such "
            f"as {printable(missing[0])!r}; name PHOTOS as they were named to featuretl extract."
        )
    return stored.embeddings[[row[name] for name in images.paths]], images


def _with_status(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call with `progress`, which shows what is being done on stderr."""
    from rich.console import Console

    console = Console(stderr=True, markup=False)
    with console.status("Reading") as status:
        return call(*args, **kwargs, progress=status.update)


def _show(found: dict[str, Any]) -> None:
    from featuretl._core.text import printable
    from featuretl.extraction.engine import Failure

    from .tables import print_failures

    failures = [Failure(i, f["path"], f["error"]) for i, f in enumerate(found["failures"])]
    print_failures(failures, "images that are not in it")
    if found["task"] != "several":
        _show_found(found)
        return
    for name, own in found["tasks"].items():
        _show_found(own, f"{printable(name)}: ")


def _show_found(found: dict[str, Any], of: str = "") -> None:
    from featuretl._core.statistics import interval_in_words
    from featuretl._core.text import printable

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
