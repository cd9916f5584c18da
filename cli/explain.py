"""``featuretl explain``: where in images the evidence for a prediction lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import device_option, json_option, model_argument, output_option, weights_option
from .printing import print_json

if TYPE_CHECKING:
    from featuretl.explanation.explanation import Explanation


@click.command()
@model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@output_option(
    "OUT.png|FOLDER",
    "Write one picture, side by side; or one for each image into a folder.",
    folder=True,
)
@click.option(
    "--target", metavar="CLASS",
    help="Class whose evidence is shown (of several regression targets, its number).  [default: the predicted]",
)  # fmt: skip
@click.option(
    "--height", type=click.IntRange(16, 4096), default=256, show_default=True,
    help="Height of each image in OUT.png, in pixels.",
)  # fmt: skip
@weights_option
@device_option
@json_option
def explain(
    model: str,
    images: tuple[str, ...],
    output: str,
    target: str | None,
    height: int,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Show where in IMAGEs the evidence for the prediction of MODEL lies: red for it, blue against it.

    IMAGEs are files, folders or patterns. Exact for linear heads on convolutional networks.
    """
    from featuretl._core.progress import progress_bar
    from featuretl._core.text import printable
    from featuretl.explanation.explaining import explain as explain_images
    from featuretl.explanation.explanation import check_overlay_output, save_overlays
    from featuretl.images.sources import find_images
    from featuretl.models.persistence import load_model

    paths = find_images(images).paths
    check_overlay_output(output, paths)
    loaded = load_model(model, weights=weights)
    with progress_bar("Explaining", len(paths)) as progress:
        found = explain_images(loaded, paths, target=target, device=device, progress=progress)
    files = save_overlays(found, output, height=height)
    if len(files) < len(found):
        files *= len(found)
    if as_json:
        facts = [_facts(e, file) for e, file in zip(found, files, strict=True)]
        print_json(facts)
        return
    for explanation in found:
        shown = f"{explanation.image}: {explanation.caption} ({explanation.method})"
        click.echo(printable(shown))
    click.echo(f"Wrote {printable(output)}")


def _facts(explanation: Explanation, file: Path) -> dict[str, Any]:
    return {
        "path": str(explanation.image),
        "target": explanation.target,
        "score": explanation.score,
        "bias": explanation.bias,
        "method": explanation.method,
        "box": explanation.box,
        "heat": explanation.heat.tolist(),
        "output": str(file),
    }
