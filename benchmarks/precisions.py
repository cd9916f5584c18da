"""Compare precisions on your own images: speed, agreement with float32, accuracy of the probe.

    python benchmarks/precisions.py FOLDER [FOLDER ..] [--backbone NAME] [--repeats 3] [--json]

A FOLDER has one subfolder per class. All images are embedded in float32, bfloat16 and int8 by
every runtime of that precision, from an empty store, alternately; "images/s" is the median of the
repeats, without the first run, which exports the network. The cosines are to PyTorch's float32.
"accuracy" is that of a linear probe on all images over five folds (sign-digits grouped by
signer); "difference" is paired, on the same images, with its standard error beside it. Networks
are on the CPU, with timm's weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
from common import show, signers
from extract import Contenders, agreement, alternate, processor
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from featuretl import LinearProbeClassifier, load_image_folder
from featuretl._core.statistics import gain_of


def measure(folder: Path, backbone: str, repeats: int) -> list[dict[str, Any]]:
    """Return a table row for each precision and runtime."""
    photos = load_image_folder(folder)
    paths, y = list(photos.data), photos.target
    groups = signers(paths, y) if folder.name == "sign-digits" else None
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = splitter(5, shuffle=True, random_state=0)
    with tempfile.TemporaryDirectory() as temporary:
        these = Contenders(Path(temporary), paths, backbone, "auto")
        runs = these.cold_runs("float32", "bfloat16", "int8")
        runs = {key: run for key, run in runs.items() if "compile" not in key}
        _, seconds = alternate(runs, repeats)
    table: list[dict[str, Any]] = []
    single = None
    for key, value in seconds.items():
        rows = these.rows[key]
        predicted = cross_val_predict(LinearProbeClassifier(), rows, y, groups=groups, cv=folds)
        right = (predicted == y).astype(float)
        single = right if single is None else single
        gain = gain_of(right, single, groups)
        row = {"data": str(folder), "images": len(paths), "contender": key.removeprefix("cold, ")}
        row |= {"images/s": len(paths) / value} | agreement(these.rows["cold, torch"], rows)
        row |= {"accuracy": float(right.mean()), "difference": gain.mean, "+-": gain.error}
        table.append(row)
    return table


@click.command(help=__doc__)
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--backbone", default="tf_efficientnet_lite0", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(folders: tuple[Path, ...], backbone: str, repeats: int, as_json: bool) -> None:
    """Run the benchmark and print it."""
    if not as_json:
        click.echo(processor())
    show([row for folder in folders for row in measure(folder, backbone, repeats)], as_json)


if __name__ == "__main__":
    main()
