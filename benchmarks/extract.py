"""From image files to a matrix: featuretl, cold and warm, compared with a plain PyTorch loop.

    python benchmarks/extract.py [--images 400] [--repeats 5] [--backbone NAME]

The usual loop (usual_loop.py) is the loop that users write by hand. The contenders alternate; each
cold run starts from an empty store and includes hashing and committing. Figures are medians. Warm
runs find everything in the store, either by file metadata or, after the memo was deleted, by
hashing the files. Backbones without packaged weights get random ones. Imports and loading are not
timed. The time that a runtime needs once per backbone, to export or compile it, has its own
column; then come core milliseconds per image and stage.

"ceiling" is the images per second at which nothing but decoding, resizing, normalising and the
network's matrix products and convolutions take time, these at the rate (GFLOP/s) that PyTorch
reaches with 1024 x 1024 matrices in the same precision on all cores. "reached" is the share of it
by the clock; "of cores" is the share of the processor time, which other processes disturb less.

`--check` warns if a speedup has fallen below 0.8 of the one recorded in ratios.json; `--record`
writes the speedups there.
"""

from __future__ import annotations

import json
import platform
import re
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
import joblib
import numpy as np
import torch
from common import show
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.exceptions import BackboneError
from featuretl.runtimes.choice import RuntimeChoice
from featuretl.runtimes.threads import one_thread_each

RATIOS = Path(__file__).with_name("ratios.json")

_MIN_RATIO = 0.8


def write_photographs(folder: Path, n: int, size: tuple[int, int] = (500, 375)) -> list[str]:
    """Write n different JPEGs of `size` (width, height), cut from two real photographs."""
    folder.mkdir(exist_ok=True)
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
    """The timed runs on photographs; each call embeds them and returns the seconds.

    `weights` are those of `load_backbone`; by default random ones if none are packaged.

    Attributes
    ----------
    rows : dict
        The last embeddings of each contender.
    costs : dict
        Seconds of processor time by stage, for the contenders that measure it.
    """

    def __init__(self, folder: Path, paths: list[str], name: str, weights: str = "") -> None:
        self.folder, self.paths, self.name = folder, paths, name
        time.sleep(2.1)  # the memo skips files modified less than 2 s ago
        self.file = packaged_file(name)
        self.rows: dict[str, np.ndarray] = {}
        self.costs: dict[str, dict[str, float]] = {}
        weights = weights or ("auto" if self.file else "random")
        self.backbones = {
            precision: load_backbone(name, weights=weights, precision=precision)
            for precision in ("float32", "bfloat16", "int8")
        }
        self._stores = 0
        self._precisions: dict[str, str] = {}
        self.gflop = gflop(self.backbones["float32"])
        self._rates: dict[str, list[float]] = {}

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

    def cold_runs(self, *precisions: str) -> dict[str, Callable[[str], float]]:
        """Return contenders with an empty store: the runtimes of each precision."""
        runs: dict[str, Callable[[str], float]] = {}
        for precision in precisions:
            runtimes = ["onnx"]
            if precision != "int8":
                with ThreadPoolExecutor(1) as pool:
                    backbone = self.backbones[precision]
                    runtimes = RuntimeChoice(backbone, None, pool, 1).possible()
            for runtime in runtimes:
                name = f"cold, {runtime}" + ("" if precision == "float32" else f", {precision}")
                runs[name] = partial(self.cold, runtime=runtime, precision=precision)
        return runs

    def cold(self, key: str, runtime: str, precision: str = "float32") -> float:
        """Embed into a new store that already holds the exported models."""
        self._precisions[key] = precision
        self._stores += 1
        store = EmbeddingStore(self.folder / f"store{self._stores}")
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        store.make_folder()
        (store.path / "models").symlink_to(models)
        if precision == "float32":
            self.store = store  # where warm runs look
        seconds = self._timed(key, store, runtime, precision)
        if precision != "int8":
            self._rates.setdefault(precision, []).append(product_rate(precision))
        return seconds

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

    @property
    def rates(self) -> dict[str, float]:
        """GFLOP/s of one core in matrix products, by precision: medians over the cold runs."""
        return {precision: statistics.median(rates) for precision, rates in self._rates.items()}

    def roofline(self, key: str, images_per_second: float) -> dict[str, float]:
        """Return the ceiling of a contender in images per second, and the shares reached."""
        if (rate := self.rates.get(self._precisions.get(key, ""))) is None:
            return {}  # int8, or no contender of ours
        costs, n = self.costs[key], len(self.paths)
        least = sum(costs[stage] for stage in ("decode", "resize", "normalise"))
        least += n * self.gflop / rate
        ceiling = n * joblib.cpu_count() / least
        shares = {"reached": images_per_second / ceiling, "of cores": least / sum(costs.values())}
        return {"ceiling": ceiling, **shares}

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.0f} in {name}" for name, rate in self.rates.items())
        return (
            f"{joblib.cpu_count()} cores of {processor()}; {self.gflop:.2f} GFLOP per image; "
            f"products at GFLOP/s per core: {rates}"
        )


def processor() -> str:
    """Return the processor's name."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.processor()


def gflop(backbone: Any) -> float:
    """Return the GFLOP of a network's matrix products and convolutions for one image."""
    blank = torch.zeros((1, *backbone.preprocessing.input_size))
    backbone.forward(blank)  # the counter counts the first call of a convolution several times
    # Only this backend of attention consists of products that the counter knows.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        backbone.forward(blank)
    return counter.get_total_flops() / 1e9


def product_rate(precision: str, n: int = 1024) -> float:
    """Return GFLOP per core second of products of n x n matrices; all cores compute together."""
    a, b = torch.rand((2, n, n)).to(getattr(torch, precision))

    def seconds(_: int) -> float:
        began = time.thread_time()
        a @ b
        return time.thread_time() - began

    cores = joblib.cpu_count()
    with ThreadPoolExecutor(cores) as pool, one_thread_each(pool, cores):
        return 2e-9 * n**3 / statistics.median(pool.map(seconds, range(10 * cores)))


def alternate(
    contenders: dict[str, Callable[[str], float]], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Run contenders alternately; return the seconds of their first run and the later median.

    One that this machine cannot run is left out, with a message.
    """
    first: dict[str, float] = {}
    for key, run in contenders.items():
        try:
            first[key] = run(key)
        except BackboneError as error:
            click.echo(f"{key}: {error}", err=True)
    seconds: dict[str, list[float]] = {key: [] for key in first}
    for _ in range(repeats):
        for key in first:
            seconds[key].append(contenders[key](key))
    return first, {key: statistics.median(values) for key, values in seconds.items()}


def measure(
    these: Contenders, contenders: dict[str, Callable[[str], float]], repeats: int
) -> list[dict[str, Any]]:
    """Run the usual loop and `contenders` alternately; return a table row for each.

    Each contender is called with its name, once before anything is timed.
    """
    usual: dict[str, Callable[[str], float]] = {"usual loop": lambda _: these.usual_loop()}
    first, seconds = alternate(usual | contenders, repeats)
    n = len(these.paths)
    rates = {key: n / value for key, value in seconds.items()}
    table = []
    for key, rate in rates.items():
        row: dict[str, Any] = {"contender": key, "images/s": rate}
        row["speedup"] = rate / rates["usual loop"]
        row |= agreement(these.rows["usual loop"], these.rows[key]) if these.file else {}
        row["setup, s"] = first[key] - n / rate if key.startswith("cold") else 0.0
        row |= {stage: 1000 * s / n for stage, s in these.costs.get(key, {}).items()}
        row |= these.roofline(key, rate)
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
@click.option("--bfloat16", is_flag=True, help="Include PyTorch and OpenVINO in bfloat16.")
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
        paths = write_photographs(Path(folder, "photographs"), images)
        these = Contenders(Path(folder), paths, backbone)
        precisions = ["float32", *["bfloat16"] * bfloat16, *["int8"] * int8]
        runs = these.cold_runs(*precisions)
        contenders = {key: run for key, run in runs.items() if compiled or "compile" not in key}
        contenders |= {"warm": these.warm, "warm by hash": these.warm_by_hash}
        table = measure(these, contenders, repeats)
    if not as_json:
        click.echo(these)
    show(table, as_json)
    if plot_file:
        plot(table, plot_file)
    if check_ or record:
        check(table, backbone, record)


if __name__ == "__main__":
    main()
