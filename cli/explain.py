"""``featuretl explain``: overlay images with the evidence for a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .options import option
from .printing import print_json

if TYPE_CHECKING:
    from featuretl.explanation.explanation import Explanation


@options.command()
@options.model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@options.output_option(
    "OUT.png|FOLDER",
    "One picture of all images, or a folder of one picture per image.",
    folder=True,
)
@option("--target", group="Model", metavar="CLASS", show_default="the predicted class",
    help="Class to explain, or the number of a regression target.")  # fmt: skip
@option("--height", group="Output", type=click.IntRange(16, 4096), metavar="PIXELS", default=256,
    help="Height of each image in OUT.png.")  # fmt: skip
@options.weights_option
@options.device_option
@options.json_option
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
    """Show the evidence for predictions of MODEL in images.

    Each IMAGE is a file, a folder or a glob pattern. Red is evidence for the prediction, blue
    against it. The evidence is exact for linear heads on convolutional networks.
    """
    from featuretl._core.progress import progress_bar
    from featuretl._core.text import printable
    from featuretl.explanation.explanation import check_overlay_output, save_overlays
    from featuretl.images.sources import find_images
    from featuretl.models.persistence import load_model

    paths = find_images(images).paths
    check_overlay_output(output, paths)
    loaded = load_model(model, weights=weights)
    from featuretl.explanation.explaining import explain as explain_images

    with progress_bar("Explaining", len(paths)) as progress:
        found = explain_images(loaded, paths, target=target, device=device, progress=progress)
    files = save_overlays(found, output, height=height)
    if len(files) < len(found):
        files *= len(found)
    if as_json:
        facts = [_facts(e, file) for e, file in zip(found, files, strict=True)]
        print_json({"output": output, "explanations": facts})
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
