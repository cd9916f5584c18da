"""From image files to a matrix: featuretl against the usual loop, cold and warm, side by side.

    python benchmarks/extract.py [--images 400] [--repeats 5] [--backbone NAME] [--json]

The usual loop is what users write by hand, in usual_loop.py. All contenders run in turn, each
repeat on a cold store with hashing and committing included; figures are medians. Warm runs find
everything in the store: by the files' state, and once more by hashing them, after the memo has been
deleted. Backbones without packaged weights get random ones. Imports and loading are not timed; what
ONNX Runtime needs once for a backbone, to export it, is a column; the last ones are milliseconds of one
core per image, by stage.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from heads import show
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.runtimes import has_onnx


def write_photographs(folder: Path, n: int, size: tuple[int, int] = (500, 375)) -> list[str]:
    """Write n different JPEGs of `size` (width, height), cut from two real photographs."""
    photographs = load_sample_images().images
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        top, left = rng.integers(0, 427 - 330), rng.integers(0, 640 - 440)
        crop = Image.fromarray(photographs[i % 2][top : top + 330, left : left + 440])
        paths.append(str(folder / f"{i:06d}.jpg"))
        crop.resize(size, Image.Resampling.LANCZOS).save(paths[-1], quality=96, comment=str(i))
    return paths


class Contenders:
    """What is timed, on the photographs of one folder."""

    def __init__(self, folder: Path, paths: list[str], name: str) -> None:
        self.folder, self.paths, self.name = folder, paths, name
        self.file = packaged_file(name)
        self.backbone = load_backbone(name, weights="auto" if self.file else "random")
        self.rows: dict[str, np.ndarray] = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.stores = 0

    @property
    def stages(self) -> list[str]:
        """What processor time is counted for."""
        return list(self.costs["torch"])

    def usual_loop(self) -> float:
        """Run the loop by hand, in its own process."""
        output = self.folder / "usual.npy"
        packaged = PACKAGED.get(self.name)
        settings = {
            "paths": self.paths,
            "name": self.name,
            "file": str(self.file) if self.file else None,
            "preprocess": packaged.preprocess if packaged else {},
            "output": str(output),
        }
        script = Path(__file__).with_name("usual_loop.py")
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, input=json.dumps(settings), capture_output=True, text=True, check=True
        )
        self.rows["usual loop"] = np.load(output)
        return float(done.stdout)

    def cold(self, runtime: str) -> float:
        """Embed into a new store; an exported model is taken along."""
        self.stores += 1
        self.store = EmbeddingStore(self.folder / f"store{self.stores}")
        if runtime == "onnx":
            models = self.folder / "models"
            models.mkdir(exist_ok=True)
            self.store.make_folder()
            (self.store.path / "models").symlink_to(models)
        seconds, self.rows[runtime] = self._timed(self.store, runtime)
        return seconds

    def warm(self) -> float:
        """Find everything in the store by the files' state."""
        return self._timed(self.store, "torch")[0]

    def warm_by_hash(self) -> float:
        """Find everything in the store by the files' content."""
        (self.store.path / "memo.sqlite").unlink()
        return self._timed(EmbeddingStore(self.store.path), "torch")[0]

    def _timed(self, store: EmbeddingStore, runtime: str) -> tuple[float, np.ndarray]:
        began = time.perf_counter()
        extraction = extract(self.paths, self.backbone, store=store, runtime=runtime)
        rows = extraction.to_numpy()
        seconds = time.perf_counter() - began
        if extraction.statistics.embedded:
            self.costs[runtime] = extraction.statistics.costs
        return seconds, rows


def measure(n_images: int, repeats: int, name: str) -> list[dict[str, Any]]:
    """Return a row per contender: images per second (medians), the ratio and the agreement."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), n_images)
        time.sleep(2.1)  # files younger than 2 s are not remembered by their state
        these = Contenders(Path(folder), paths, name)
        contenders: dict[str, Callable[[], float]] = {
            "usual loop": these.usual_loop,
            "cold, torch": lambda: these.cold("torch"),
        }
        if has_onnx():
            first = these.cold("onnx")
            contenders["cold, onnx"] = lambda: these.cold("onnx")
        contenders |= {"warm": these.warm, "warm by hash": these.warm_by_hash}
        seconds: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(repeats):
            for key, run in contenders.items():
                seconds[key].append(run())
    rates = {key: n_images / statistics.median(values) for key, values in seconds.items()}
    table = []
    for key, rate in rates.items():
        row: dict[str, Any] = {"contender": key, "images/s": rate}
        row["to the usual loop"] = rate / rates["usual loop"]
        row["least cosine"] = _least_cosine(these.rows, key) if these.file else None
        row["once, s"] = first - statistics.median(seconds[key]) if key == "cold, onnx" else 0.0
        costs = these.costs.get(key.removeprefix("cold, "), {})
        row |= {f"{stage} ms": 1000 * costs.get(stage, 0.0) / n_images for stage in these.stages}
        table.append(row)
    return table


def _least_cosine(rows: dict[str, np.ndarray], contender: str) -> float:
    """Return the least cosine between a contender's embeddings and those of the usual loop."""
    a, b = rows["usual loop"], rows["onnx" if "onnx" in contender else "torch"]
    if contender == "usual loop":
        b = a
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@click.command(help=__doc__)
@click.option("--images", default=400, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--backbone", default="tf_efficientnet_lite0", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: int, repeats: int, backbone: str, as_json: bool) -> None:
    """Run the benchmark and print it."""
    show(measure(images, repeats, backbone), as_json)


if __name__ == "__main__":
    main()
