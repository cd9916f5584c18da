"""``featuretl predict``: what a model file says of any number of images, in a file."""

from __future__ import annotations

import dataclasses
import json

import click

from .options import cache_options, json_option, model_options, resolve_cache


@click.command()
@model_options
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), required=True,
    metavar="OUT.csv|.parquet|.jsonl", help="Write a row per image, in order.",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True,
    help="Name so many classes, with their probabilities.",
)  # fmt: skip
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="PROBABILITY",
    help="Predict nothing that is less probable.  [default: 0, and 0.5 for each of several labels]",
)  # fmt: skip
@click.option(
    "--novelty", is_flag=True,
    help="Say how unlike the training images each is, in [0, 1): 0.95 is novel at a level of 5%.",
)  # fmt: skip
@cache_options
@json_option
def predict(
    model: str,
    photos: tuple[str, ...],
    weights: str | None,
    device: str,
    n_jobs: int | None,
    path_column: str | None,
    output: str,
    top: int,
    threshold: float | None,
    novelty: bool,
    cache: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Predict PHOTOS with MODEL into OUT, in bounded memory.

    A killed run goes on where it was when the command is given again. An image that cannot be read
    has its row, with the reason in the column `error`.
    """
    from featuretl._core.progress import progress_bar
    from featuretl._core.text import printable
    from featuretl.extraction.outputs import check_output
    from featuretl.images.sources import find_images
    from featuretl.models.persistence import load_model
    from featuretl.prediction.files import ENDINGS, predict_to_file
    from featuretl.prediction.predict import use_machine

    check_output(output, ENDINGS)
    images = find_images(photos, path_column=path_column)
    loaded = load_model(model, weights=weights)
    store = resolve_cache(cache, no_cache)
    use_machine(loaded, cache=store, device=device, n_jobs=n_jobs)
    try:
        with progress_bar("Predicting", len(images)) as progress:
            written = predict_to_file(
                loaded,
                images.paths,
                output,
                top=top,
                threshold=threshold,
                novelty=novelty,
                progress=progress,
            )
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the command again to go on.", err=True)
        raise
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(written), "output": output}))
        return
    resumed = f", {written.resumed:,} of them by an earlier run" if written.resumed else ""
    click.echo(f"Wrote {written.images:,} rows to {printable(output)}{resumed}")
    if written.failed:
        click.echo(f"{written.failed:,} images cannot be read: see the column error")
    if threshold or written.abstained:
        click.echo(f"Abstained from {written.abstained:,}: nothing is as probable as the threshold")
    if written.drift is not None:
        click.echo(written.drift.explain())
