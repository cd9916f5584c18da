"""``featuretl train``: labelled images to a model file."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from featuretl._core.text import printable

from . import options
from .labels import check_columns, groups_of, labels_of, typed_table
from .printing import print_json, print_table

_TEST_SIZE = options.WordOr(
    {"auto": "auto", "none": None}, click.FloatRange(0, 0.5, min_open=True), "SHARE"
)


@click.command()
@options.photos_argument
@options.output_option("OUT.featuretl", "Write the model, with its card.")
@click.option(
    "--strategy", type=click.Choice(["auto", "nearest-mean", "linear", "svm", "fine-tune"]),
    default="auto", show_default=True, help="auto tries what the images allow.",
)  # fmt: skip
@click.option(
    "--backbone", default="tf_efficientnet_lite0", show_default=True, metavar="auto|NAME,..",
    callback=options.one_or_list,
    help="A timm model; of several, with commas, the best; auto compares the packaged ones.",
)  # fmt: skip
@options.backbone_weights_option
@options.manifest_options(
    label_column=options.label_columns_option,
    label_separator=options.label_separator_option,
    group_column=options.groups_option,
)
@click.option(
    "--target", metavar="COLUMN", multiple=True,
    help="Column of a manifest with numbers: regression; given several times, or beside "
    "--label-column, a task of its own.",
)  # fmt: skip
@click.option(
    "--test-size", type=_TEST_SIZE, default="auto", show_default=True,
    help="Fraction of the images that is held out for the outer score.",
)  # fmt: skip
@click.option(
    "--time-budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="Time limit in seconds; candidates that would exceed it are skipped.",
)  # fmt: skip
@options.seed_option
@click.option(
    "--novelty/--no-novelty", default=True, show_default=True,
    help="Save embeddings of up to 2,000 training images in the model, for predict --novelty.",
)  # fmt: skip
@options.machine_options
@options.store_options
@options.json_option
def train(
    photos: tuple[str, ...],
    output: str,
    columns: dict[str, Any],
    target: tuple[str, ...],
    machine: dict[str, Any],
    store: Any,
    as_json: bool,
    **given: Any,
) -> None:
    """Train on labelled PHOTOS, and write a model that can be evaluated and predicts.

    PHOTOS are class folders, or .csv or .parquet manifests. The strategy is chosen on inner
    splits; the score is that of images that had no part in it. Images with several labels each take
    "--strategy linear", and --label-separator or several columns in --label-column. Several tasks on
    the same images, each with its --label-column or --target, are one model of linear probes. A column
    of numbers with a fraction, or of more than 20 different ones, is a regression without --target, too.
    """
    from featuretl.images.sources import find_images
    from featuretl.models.card import data_of
    from featuretl.models.format import check_target
    from featuretl.models.persistence import save_model

    check_target(output)
    tasks = _tasks(columns["label_column"], columns["label_separator"], target)
    if tasks or target:
        columns["label_column"] = None if tasks else target[0]
    images = find_images(photos, **columns, task_columns=tuple(tasks))
    if tasks:
        y: Any = typed_table(images)
        rows: list[Any] = [dict(zip(y, row, strict=True)) for row in zip(*y.values(), strict=True)]
    else:
        y = rows = labels_of(images, bool(target), columns["label_column"])
        check_columns(y, columns["label_column"])
    model = _estimator(tasks, bool(target), **given, **machine, cache=store, verbose=1)
    model.fit(images.paths, y, groups=groups_of(images))
    command = shlex.join(["featuretl", *sys.argv[1:]])
    card = {"data": data_of(images.paths, rows, store), "command": command}
    save_model(model, output, card=card)
    if as_json:
        print_json(_facts(model, output))
        return
    _show(model)
    click.echo(f"Model: {printable(output)}")


def _estimator(
    tasks: dict[str, Any], is_regression: bool, time_budget: float | None, **parameters: Any
) -> Any:
    """Return the estimator of one task or several, of which --time-budget is for one only."""
    from featuretl.transfer.classifier import TransferClassifier
    from featuretl.transfer.multi_task import TransferMultiTask
    from featuretl.transfer.regressor import TransferRegressor

    if not tasks:
        kind: Any = TransferRegressor if is_regression else TransferClassifier
        return kind(time_budget=time_budget, **parameters)
    if time_budget is not None:
        raise click.UsageError("--time-budget has no use for several tasks; leave it out.")
    known = {name: task for name, task in tasks.items() if task}
    return TransferMultiTask(tasks=known, **parameters)


def _tasks(
    label_column: Any, label_separator: str | None, target: tuple[str, ...]
) -> dict[str, Any]:
    """Return the columns of several tasks, each with its kind where one is given; {} for one task."""
    named = label_column if isinstance(label_column, tuple) else (label_column,)
    columns = [column for column in named if column]
    if len(columns) + len(target) < 2:
        return {}
    if label_separator or any(isinstance(column, list) for column in columns):
        raise click.UsageError(
            "Several labels per image are no one of several tasks: --label-separator, commas in "
            "--label-column and several tasks exclude each other."
        )
    if len({*columns, *target}) < len(columns) + len(target):
        raise click.UsageError("Each task is another column; one is named twice.")
    return {**dict.fromkeys(columns), **dict.fromkeys(target, "regression")}


def _show(model: Any) -> None:
    """Print the decision: the table and why; of several tasks a line each."""
    from rich.console import Console

    console = Console()
    if hasattr(model, "decisions_"):
        console.print(model.decision_, soft_wrap=not console.is_terminal, markup=False)
        return
    parts = model.decision_.__rich__().renderables
    print_table(parts[0])
    console.print(parts[1], soft_wrap=not console.is_terminal)


def _facts(model: Any, output: str) -> dict[str, Any]:
    if hasattr(model, "decisions_"):
        tasks = {
            name: {"task": model.tasks_[name], **_decided(decision)}
            for name, decision in model.decisions_.items()
        }
        return {"output": output, "backbone": model.backbone_, "tasks": tasks}
    return {"output": output, **_decided(model.decision_)}


def _decided(decision: Any) -> dict[str, Any]:
    return {
        "strategy": decision.strategy,
        "backbone": decision.backbone,
        "images": decision.n_images,
        "score_name": decision.score_name,
        "outer": vars(decision.outer),
        "seconds": decision.seconds,
        "candidates": decision.candidates.to_dict(orient="records"),
    }
