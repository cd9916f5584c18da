"""``featuretl predict``: write the predictions of a model for any number of images to a file."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from . import options
from .options import option
from .printing import print_json


@options.command()
@options.model_argument
@options.photos_argument
@options.weights_option
@options.manifest_options()
@options.machine_options
@options.output_option("OUT.csv|.parquet|.jsonl", "Table of predictions, one row per image.")
@option("--top", group="Output", type=click.IntRange(min=1), metavar="N", default=1,
    help="Number of most probable classes to write.")  # fmt: skip
@option("--threshold", group="Output", type=click.FloatRange(0, 1), metavar="PROBABILITY",
    show_default="0; multi-label: 0.5", help="Abstain from less probable predictions.")  # fmt: skip
@option("--novelty", group="Output", is_flag=True,
    help="Add a novelty score in [0, 1); 0.95 is novel at the 5% level.")  # fmt: skip
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
    """Write the predictions of MODEL for PHOTOS to a file.

    PHOTOS are as in "featuretl extract". Memory use does not depend on their number, and the same
    command resumes an interrupted run. An unreadable image gets a row with the reason in the column
    error.
    """
    from featuretl._core.files import check_output
    from featuretl._core.progress import progress_bar
    from featuretl._core.text import printable
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
            written = predict_to_file(loaded, images.images, output, progress=progress, **given)
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the command again to resume.", err=True)
        raise
    if as_json:
        print_json({**dataclasses.asdict(written), "output": output})
        return
    resumed = f", {written.resumed:,} of them by an earlier run" if written.resumed else ""
    click.echo(f"Wrote {written.images:,} rows to {printable(output)}{resumed}")
    if written.failed:
        click.echo(f"{written.failed:,} images cannot be read; see the column error")
    if given["threshold"] or written.abstained:
        click.echo(f"Abstained from {written.abstained:,}: no probability reaches the threshold")
    if written.drift is not None:
        click.echo(written.drift.explain())
