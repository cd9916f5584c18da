"""``featuretl predict``: what a model file predicts for any number of images, in a file."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from . import options
from .printing import print_json


@click.command()
@options.model_argument
@options.photos_argument
@options.weights_option
@options.manifest_options()
@options.machine_options
@options.output_option("OUT.csv|.parquet|.jsonl", "Write a row per image, in order.")
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True,
    help="Number of classes to give, with their probabilities, the most probable first.",
)  # fmt: skip
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="PROBABILITY",
    help="Predict nothing that is less probable.  [default: 0, and 0.5 for each of several labels]",
)  # fmt: skip
@click.option(
    "--novelty", is_flag=True,
    help="Add how unlike the training images each image is, in [0, 1): 0.95 is novel at a level of 5%.",
)  # fmt: skip
@options.store_options
@options.json_option
def predict(
    model: str,
    photos: tuple[str, ...],
    weights: str | None,
    columns: dict[str, Any],
    machine: dict[str, Any],
    store: Any,
    output: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Predict PHOTOS with MODEL into OUT, in bounded memory.

    An interrupted run resumes when the command is given again. An image that cannot be read has its
    row, with the reason in the column `error`.
    """
    from featuretl._core.progress import progress_bar
    from featuretl._core.text import printable
    from featuretl.extraction.outputs import check_output
    from featuretl.images.sources import find_images
    from featuretl.models.persistence import load_model
    from featuretl.prediction.files import ENDINGS, predict_to_file
    from featuretl.prediction.predict import use_machine

    check_output(output, ENDINGS)
    images = find_images(photos, **columns)
    loaded = load_model(model, weights=weights)
    use_machine(loaded, cache=store, **machine)
    try:
        with progress_bar("Predicting", len(images)) as progress:
            written = predict_to_file(loaded, images.paths, output, progress=progress, **given)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the command again to go on.", err=True)
        raise
    if as_json:
        print_json({**dataclasses.asdict(written), "output": output})
        return
    resumed = f", {written.resumed:,} of them by an earlier run" if written.resumed else ""
    click.echo(f"Wrote {written.images:,} rows to {printable(output)}{resumed}")
    if written.failed:
        click.echo(f"{written.failed:,} images cannot be read: see the column error")
    if given["threshold"] or written.abstained:
        click.echo(f"Abstained from {written.abstained:,}: nothing is as probable as the threshold")
    if written.drift is not None:
        click.echo(written.drift.explain())
