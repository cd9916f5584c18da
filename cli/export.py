"""``featuretl export``: a model file as one ONNX graph."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from featuretl._core.text import printable

from .options import json_option, model_argument, output_option, weights_option
from .printing import print_json

if TYPE_CHECKING:
    from featuretl.export.exporting import ExportResult

_PHOTOS = "PHOTOS"


@click.command()
@model_argument
@output_option("OUT.onnx", "Write backbone, scaling and head as one graph.")
@click.option(
    "--precision", type=click.Choice(["float32", "int8"]), default="float32", show_default=True,
    help="int8 is smaller and changes some predictions: --evaluate measures how many.",
)  # fmt: skip
@click.option(
    "--check", multiple=True, metavar=_PHOTOS,
    help="Images on which the graph must agree with Python, besides featuretl's own; repeatable.",
)  # fmt: skip
@click.option(
    "--calibrate", multiple=True, metavar=_PHOTOS,
    help="int8: images that show the range of activations.  [default: scikit-learn's two]",
)  # fmt: skip
@click.option(
    "--evaluate", multiple=True, metavar=_PHOTOS,
    help="int8: labelled images on which the loss is measured, that MODEL was not trained on.",
)  # fmt: skip
@click.option("--label-column", help="Column of the manifest of --evaluate that holds the classes.")
@weights_option
@json_option
def export(
    model: str,
    output: str,
    precision: str,
    check: tuple[str, ...],
    calibrate: tuple[str, ...],
    evaluate: tuple[str, ...],
    label_column: str | None,
    weights: str | None,
    as_json: bool,
) -> None:
    """Write MODEL as an ONNX graph for servers without featuretl and PyTorch.

    Its metadata say how to prepare images, and name the classes. It is written only if it agrees
    with MODEL in Python to 1e-4.
    """
    from featuretl.export.exporting import export_model
    from featuretl.extraction.outputs import check_output
    from featuretl.images.sources import find_images
    from featuretl.models.fitted import Fitted
    from featuretl.models.persistence import load_model, read_card

    from .labels import labels_of

    check_output(output, (".onnx",))
    if label_column and not evaluate:
        raise click.UsageError("--label-column is for --evaluate.")
    loaded = load_model(model, weights=weights)
    labelled = find_images(evaluate, label_column=label_column) if evaluate else None
    exported = export_model(
        loaded,
        output,
        precision=precision,
        check=find_images(check).paths if check else (),
        calibrate=find_images(calibrate).paths if calibrate else None,
        evaluate=labelled.paths if labelled else None,
        y=labels_of(labelled, numbers=Fitted.of(loaded).classes is None) if labelled else None,
        card=read_card(model),
    )
    if as_json:
        print_json(dataclasses.asdict(exported))
        return
    _show(exported)


def _show(exported: ExportResult) -> None:
    megabytes = exported.bytes / 1e6
    click.echo(f"Wrote {printable(exported.path)}: {exported.precision}, {megabytes:.1f} MB")
    click.echo(f"Outputs: {', '.join(exported.outputs)}")
    click.echo(
        f"In float32 it agrees with Python on {exported.checked} images to {exported.difference:.0e}"
    )
    loss = exported.loss
    if loss is None:
        return
    click.echo(
        f"{loss.score_name} in int8 {loss.int8:.3f}, in float32 {loss.float32:.3f}, on "
        f"{loss.images:,} images"
    )
    if loss.score_name != "r2":
        click.echo(
            f"Difference {100 * (loss.int8 - loss.float32):+.1f} +- {100 * loss.standard_error:.1f} "
            f"points; {loss.changed:,} predictions changed"
        )
