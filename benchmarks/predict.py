"""Memory and time to predict with a model file into a Parquet file, by number of images.

    python benchmarks/predict.py [--images 2000 --images 20000 --images 200000] [--json]

A pipeline on the default backbone predicts the same digits (8 x 8 pixels) repeatedly, in a new
process for each number of images; all embeddings are in the store. "peak MiB" is the peak memory
of the whole process, and "list MiB" the memory of the list of paths.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import click
from common import show
from finetune import in_own_process, peak_mib


def train(folder: str) -> list[str]:
    """Write the digits and a model trained on them; return the paths."""
    from featuretl_cli.digits import write_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from sklearn.pipeline import make_pipeline

    from featuretl import ImageEmbedder, LinearProbeClassifier, load_image_folder, save_model

    photos = load_image_folder(write_digits(f"{folder}/digits") / "train")
    model = make_pipeline(ImageEmbedder(cache=f"{folder}/store"), LinearProbeClassifier())
    save_model(model.fit(photos.data, photos.target), f"{folder}/model.featuretl")
    return list(photos.data)


def predict(folder: str, paths: list[str], n: int) -> dict[str, float]:
    """Predict n rows; return the time and the memory."""
    from featuretl import load_model, predict_to_file
    from featuretl.prediction.predict import use_machine

    model = load_model(f"{folder}/model.featuretl")
    use_machine(model, cache=f"{folder}/store")
    # Distinct strings, as a manifest would give.
    images = [f"{folder}/./{paths[i % len(paths)][len(folder) + 1 :]}" for i in range(n)]
    began = time.perf_counter()
    predict_to_file(model, images, f"{folder}/{n}.parquet")
    seconds = time.perf_counter() - began
    list_mib = (sys.getsizeof(images) + sum(map(sys.getsizeof, images))) / 2**20
    return {"s": seconds, "list MiB": list_mib, "peak MiB": peak_mib()}


@click.command(help=__doc__)
@click.option("--images", default=[2_000, 20_000, 200_000], multiple=True, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: tuple[int, ...], as_json: bool) -> None:
    """Run the benchmark and print it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = in_own_process(train, folder)
        table: list[dict[str, Any]] = [
            {"images": n, **in_own_process(predict, folder, paths, n)} for n in images
        ]
    show(table, as_json)


if __name__ == "__main__":
    main()
