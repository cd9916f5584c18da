"""From image files to a matrix: featuretl, cold and warm, compared with a plain PyTorch loop.

    python benchmarks/extract.py [--images 400] [--repeats 5] [--backbone NAME]

The usual loop (usual_loop.py) is the loop that users write by hand. The contenders alternate; each
cold run starts from an empty store and includes hashing and committing. Figures are medians. Warm
runs find everything in the store, either by file metadata or, after the memo was deleted, by
hashing the files. Backbones without packaged weights get random ones. Imports and loading are not
timed. The time that a runtime needs once per backbone, to export or compile it, has its own
column; the last columns are core milliseconds per image and stage.

`--check` warns if a speedup has fallen below 0.8 of the one recorded in ratios.json; `--record`
writes the speedups there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import show
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.runtimes.choice import RuntimeChoice

RATIOS = Path(__file__).with_name("ratios.json")

_MIN_RATIO = 0.8


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
    """The timed runs on newly written photographs; each call embeds them and returns the seconds.

    Attributes
    ----------
    rows : dict
        The last embeddings of each contender.
    costs : dict
        Seconds of processor time by stage, for the contenders that measure it.
    """

    def __init__(self, folder: Path, n_images: int, name: str) -> None:
        photographs = folder / "photographs"
        photographs.mkdir()
        self.folder, self.name = folder, name
        self.paths = write_photographs(photographs, n_images)
        time.sleep(2.1)  # the memo skips files modified less than 2 s ago
        self.file = packaged_file(name)
        self.rows: dict[str, np.ndarray] = {}
        self.costs: dict[str, dict[str, float]] = {}
        weights = "auto" if self.file else "random"
        self.backbones = {
            precision: load_backbone(name, weights=weights, precision=precision)
            for precision in ("float32", "bfloat16", "int8")
        }
        self._stores = 0

    def script(self, key: str, *command: str) -> float:
        """Run a script in its own process, with its settings as JSON on standard input."""
        output = self.folder / "rows.npy"
        packaged = PACKAGED.get(self.name)
        settings = {
            "paths": self.paths,
            "name": self.name,
            "file": str(self.file) if self.file else None,
            "preprocess": packaged.preprocess if packaged else {},
            "output": str(output),
        }
        done = subprocess.run(command, input=json.dumps(settings), capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"{key}: {done.stderr.strip().splitlines()[-1]}")
        self.rows[key] = np.load(output)
        return float(done.stdout.splitlines()[-1])

    def usual_loop(self) -> float:
        """Run usual_loop.py."""
        script = Path(__file__).with_name("usual_loop.py")
        return self.script("usual loop", sys.executable, str(script))

    def cold(self, key: str, runtime: str, precision: str = "float32") -> float:
        """Embed into a new store that already holds the exported models."""
        self._stores += 1
        store = EmbeddingStore(self.folder / f"store{self._stores}")
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        store.make_folder()
        (store.path / "models").symlink_to(models)
        if precision == "float32":
            self.store = store  # where warm runs look
        return self._timed(key, store, runtime, precision)

    def warm(self, key: str) -> float:
        """Find everything in the store by file metadata."""
        return self._timed(key, self.store, "torch")

    def warm_by_hash(self, key: str) -> float:
        """Find everything in the store by file content."""
        (self.store.path / "memo.sqlite").unlink()
        return self._timed(key, EmbeddingStore(self.store.path), "torch")

    def _timed(
        self, key: str, store: EmbeddingStore, runtime: str, precision: str = "float32"
    ) -> float:
        backbone = self.backbones[precision]
        began = time.perf_counter()
        extraction = extract(self.paths, backbone, store=store, runtime=runtime)
        self.rows[key] = extraction.to_numpy()
        seconds = time.perf_counter() - began
        self.costs[key] = extraction.statistics.costs
        return seconds


def measure(
    these: Contenders, contenders: dict[str, Callable[[str], float]], repeats: int
) -> list[dict[str, Any]]:
    """Run the usual loop and `contenders` alternately; return a table row for each.

    Each contender is called with its name, once before anything is timed.
    """
    all_ = {"usual loop": lambda _: these.usual_loop(), **contenders}
    first = {key: run(key) for key, run in all_.items()}
    seconds: dict[str, list[float]] = {key: [] for key in all_}
    for _ in range(repeats):
        for key, run in all_.items():
            seconds[key].append(run(key))
    n = len(these.paths)
    rates = {key: n / statistics.median(values) for key, values in seconds.items()}
    table = []
    for key, rate in rates.items():
        row: dict[str, Any] = {"contender": key, "images/s": rate}
        row["speedup"] = rate / rates["usual loop"]
        row |= agreement(these.rows["usual loop"], these.rows[key]) if these.file else {}
        row["setup, s"] = first[key] - n / rate if key.startswith("cold") else 0.0
        row |= {stage: 1000 * s / n for stage, s in these.costs.get(key, {}).items()}
        table.append(row)
    columns = dict.fromkeys(column for row in table for column in row)
    return [{column: row.get(column, 0.0) for column in columns} for row in table]


def agreement(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the mean and the minimum cosine between rows of two arrays (n, d)."""
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {"mean cosine": float(cosines.mean()), "minimum cosine": float(cosines.min())}


def check(table: list[dict[str, Any]], backbone: str, record: bool) -> None:
    """Warn of speedups that fell since they were recorded, or record them."""
    recorded = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    now = {row["contender"]: round(row["speedup"], 2) for row in table}
    if record:
        RATIOS.write_text(json.dumps({**recorded, backbone: now}, indent=1) + "\n")
        return
    for contender, before in recorded.get(backbone, {}).items():
        if contender in now and now[contender] < _MIN_RATIO * before:
            click.echo(
                f"Warning: {contender}: the speedup is {now[contender]}; {before} was recorded.",
                err=True,
            )


def plot(table: list[dict[str, Any]], file: str) -> None:
    """Plot the images per second of all contenders except the warm runs."""
    import matplotlib.pyplot as plt

    rows = [row for row in table if not row["contender"].startswith("warm")][::-1]
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(rows) + 0.9), layout="constrained")
    ours = ["#d95f02" if row["contender"].startswith("cold") else "#7f7f7f" for row in rows]
    names = [row["contender"].replace("cold", "featuretl") for row in rows]
    bars = axes.barh(names, [row["images/s"] for row in rows], color=ours)
    labels = [f"{r['images/s']:.0f} ({r['speedup']:.1f}x)" for r in rows]
    axes.bar_label(bars, labels, padding=3)
    axes.margins(x=0.18)
    axes.set_xlabel("images per second, from files to a matrix")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that extract.py and peers.py share."""
    for option in (
        click.option("--images", default=400, show_default=True),
        click.option("--repeats", default=5, show_default=True),
        click.option("--backbone", default="tf_efficientnet_lite0", show_default=True),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--plot", "plot_file", help="Write a plot of the images per second to a file."
        ),
    ):
        command = option(command)
    return command


@click.command(help=__doc__)
@options
@click.option("--compile", "compiled", is_flag=True, help="Include compiled PyTorch.")
@click.option("--bfloat16", is_flag=True, help="Include PyTorch in bfloat16.")
@click.option("--int8", is_flag=True, help="Include ONNX Runtime in int8.")
@click.option("--check", "check_", is_flag=True, help="Compare with the recorded speedups.")
@click.option("--record", is_flag=True, help="Record the speedups.")
def main(
    images: int,
    repeats: int,
    backbone: str,
    as_json: bool,
    plot_file: str | None,
    compiled: bool,
    bfloat16: bool,
    int8: bool,
    check_: bool,
    record: bool,
) -> None:
    """Run the benchmark and print it."""
    with tempfile.TemporaryDirectory() as folder:
        these = Contenders(Path(folder), images, backbone)
        with ThreadPoolExecutor(1) as pool:
            runtimes = RuntimeChoice(these.backbones["float32"], None, pool, 1).possible()
        contenders: dict[str, Callable[[str], float]] = {
            f"cold, {runtime}": partial(these.cold, runtime=runtime)
            for runtime in runtimes
            if compiled or runtime != "compile"
        }
        if bfloat16:
            contenders["cold, torch, bfloat16"] = partial(
                these.cold, runtime="torch", precision="bfloat16"
            )
        if int8:
            contenders["cold, onnx, int8"] = partial(these.cold, runtime="onnx", precision="int8")
        contenders |= {"warm": these.warm, "warm by hash": these.warm_by_hash}
        table = measure(these, contenders, repeats)
    show(table, as_json)
    if plot_file:
        plot(table, plot_file)
    if check_ or record:
        check(table, backbone, record)


if __name__ == "__main__":
    main()
