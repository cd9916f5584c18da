"""``featuretl train``: train a model file on labelled images."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from featuretl._core.text import printable

from . import options
from .labels import check_classes, groups_of, labels_of, typed_table
from .options import option
from .printing import print_json, print_table

_TEST_SIZE = options.WordOr({"auto": "auto", "none": None}, click.FloatRange(0, 0.5, min_open=True))


@options.command()
@options.photos_argument
@options.output_option("OUT.featuretl", "Model file, which includes a model card.")
@option("--strategy", group="Model", default="auto",
    type=click.Choice(["auto", "nearest-mean", "linear", "svm", "fine-tune"]),
    help="auto compares the strategies that suit the number of images.")  # fmt: skip
@option("--backbone", group="Model", default="tf_efficientnet_lite0", metavar="auto|NAME,..",
    callback=options.one_or_list,
    help="timm models to compare; auto compares the packaged ones.")  # fmt: skip
@options.backbone_weights_option
@options.collected(
    "sizes",
    {
        "image_size": options.image_size_option,
        "crop_pct": options.crop_pct_option,
        "decode": options.decode_option,
    },
)
@options.manifest_options(
    label_column=options.label_columns_option,
    label_separator=options.label_separator_option,
    group_column=options.groups_option,
)
@option("--target", group="Input", metavar="COLUMN", multiple=True,
    help="Manifest column of regression targets; repeated for multi-task.")  # fmt: skip
@option("--test-size", group="Model", type=_TEST_SIZE, metavar="auto|none|FRACTION", default="auto",
    help="Fraction of the images that is held out for the outer score.")  # fmt: skip
@option("--time-budget", group="Model", type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS", help="Time limit; candidates that would exceed it are skipped.")  # fmt: skip
@options.seed_option
@option("--novelty/--no-novelty", group="Model", rare=True, default=True,
    help="Save a novelty detector in the model, for predict --novelty.")  # fmt: skip
@options.machine_options
@options.store_options
@options.json_option
def train(
    photos: tuple[str, ...],
    output: str,
    columns: dict[str, Any],
    target: tuple[str, ...],
    sizes: dict[str, Any],
    machine: dict[str, Any],
    store: Any,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a model on labelled PHOTOS and print its held-out score.

    PHOTOS are class folders, or .csv or .parquet manifests. Inner splits choose the strategy; other
    images, which had no part in the choice, give the score. Multi-label images
    (--label-separator, or --label-column A,B) require --strategy linear. A multi-task model
    (--label-column and --target, repeated) has a linear probe for each task; in it, a label column
    of numbers with fractions, or of more than 20 different numbers, is a regression task.
    """
    from featuretl.images.sources import find_images
    from featuretl.models.format import check_target

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
        check_classes(y, columns["label_column"])
    if any(value not in (None, "full") for value in sizes.values()):
        given["backbone"] = _sized(given["backbone"], sizes)
    model = _estimator(tasks, bool(target), **given, **machine, cache=store, verbose=1)
    model.fit(images.images, y, groups=groups_of(images))
    from featuretl.models.card import data_of
    from featuretl.models.persistence import save_model

    command = shlex.join(["featuretl", *sys.argv[1:]])
    card = {"data": data_of(images.images, rows, store), "command": command}
    save_model(model, output, card=card)
    if as_json:
        print_json(_facts(model, output))
        return
    _show(model)
    click.echo(f"Model: {printable(output)}")


def _sized(backbone: Any, sizes: dict[str, Any]) -> Any:
    """Return the spec or specs of named backbones with --image-size, --crop-pct and --decode."""
    from featuretl.backbones.spec import BackboneSpec

    if backbone == "auto":
        raise click.UsageError(
            "--image-size, --crop-pct and --decode require the names of --backbone."
        )
    names = [backbone] if isinstance(backbone, str) else backbone
    specs = [BackboneSpec.of("featuretl train", name, **sizes) for name in names]
    return specs[0] if len(specs) == 1 else specs


def _estimator(
    tasks: dict[str, Any], is_regression: bool, time_budget: float | None, **parameters: Any
) -> Any:
    """Return the estimator for one task or several; --time-budget requires a single task."""
    from featuretl.transfer.classifier import TransferClassifier
    from featuretl.transfer.multi_task import TransferMultiTask
    from featuretl.transfer.regressor import TransferRegressor

    if not tasks:
        kind: Any = TransferRegressor if is_regression else TransferClassifier
        return kind(time_budget=time_budget, **parameters)
    if time_budget is not None:
        raise click.UsageError("--time-budget requires a single task; drop it.")
    known = {name: task for name, task in tasks.items() if task}
    return TransferMultiTask(tasks=known, **parameters)


def _tasks(
    label_column: Any, label_separator: str | None, target: tuple[str, ...]
) -> dict[str, Any]:
    """Return the columns of several tasks, with "regression" for targets; {} for a single task."""
    named = label_column if isinstance(label_column, tuple) else (label_column,)
    columns = [column for column in named if column]
    if len(columns) + len(target) < 2:
        return {}
    if label_separator or any(isinstance(column, list) for column in columns):
        raise click.UsageError(
            "Multi-label (--label-separator, or commas in --label-column) and multi-task exclude "
            "each other; name one column for each task."
        )
    if len({*columns, *target}) < len(columns) + len(target):
        raise click.UsageError(
            "--label-column and --target name a column twice; each task needs its own."
        )
    return {**dict.fromkeys(columns), **dict.fromkeys(target, "regression")}


def _show(model: Any) -> None:
    """Print the decision: its table and the reasons, or a line for each of several tasks."""
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
            name: {"task": model.tasks_[name], **_facts_of_decision(decision)}
            for name, decision in model.decisions_.items()
        }
        return {"output": output, "backbone": model.backbone_, "tasks": tasks}
    return {"output": output, **_facts_of_decision(model.decision_)}


def _facts_of_decision(decision: Any) -> dict[str, Any]:
    return {
        "strategy": decision.strategy,
        "backbone": decision.backbone,
        "images": decision.n_images,
        "score_name": decision.score_name,
        "outer": vars(decision.outer),
        "seconds": decision.seconds,
        "candidates": decision.candidates.to_dict(orient="records"),
    }
