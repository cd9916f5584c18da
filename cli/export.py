"""``featuretl export``: convert a model file to one ONNX graph."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from featuretl._core.text import printable

from . import options
from .options import option
from .printing import print_json

if TYPE_CHECKING:
    from featuretl.export.exporting import ExportResult


@options.command()
@options.model_argument
@options.output_option("OUT.onnx", "ONNX graph of backbone, scaling and head.")
@option("--precision", group="Output", type=click.Choice(["float32", "int8"]), default="float32",
    help="int8 is smaller but changes some predictions.")  # fmt: skip
@option("--check", group="Input", multiple=True, metavar="PHOTOS",
    help="Further images on which the graph must agree with Python; repeatable.")  # fmt: skip
@option("--calibrate", group="Input", multiple=True, metavar="PHOTOS",
    show_default="scikit-learn's two photographs",
    help="Calibration images for int8; repeatable.")  # fmt: skip
@option("--evaluate", group="Input", multiple=True, metavar="PHOTOS",
    help="Labelled images, not used in training, to score int8 on; repeatable.")  # fmt: skip
@option("--label-column", group="Input", metavar="COLUMN",
    help="Column of labels in a manifest given to --evaluate.")  # fmt: skip
@options.weights_option
@options.json_option
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
    """Export MODEL to ONNX, to serve it without featuretl or PyTorch.

    The metadata of the graph describe the preprocessing and name the classes. The graph is written
    only if it agrees with MODEL in Python to 1e-4. --precision int8 requires --evaluate.
    """
    from featuretl._core.files import check_output
    from featuretl.images.sources import find_images
    from featuretl.models.fitted import Fitted
    from featuretl.models.persistence import load_model, read_card

    from .labels import labels_of

    check_output(output, (".onnx",))
    if label_column and not evaluate:
        raise click.UsageError("--label-column requires --evaluate.")
    loaded = load_model(model, weights=weights)
    from featuretl.export.exporting import export_model

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
        f"The float32 graph agrees with Python to {exported.difference:.0e} on "
        f"{exported.checked} images"
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
            f"Difference {100 * (loss.int8 - loss.float32):+.1f} +- "
            f"{100 * loss.standard_error:.1f} points; {loss.changed:,} predictions changed"
        )
