"""Beyond one machine: cost of the engine, cost of an image, and a plan for a billion images.

    python benchmarks/scale.py engine             200,000 images in tar shards, stub network
    python benchmarks/scale.py plan FOLDER        measures an image, calculates a billion
    python benchmarks/scale.py heads              a linear probe on 5,000,000 x 384 float16 in files

`engine` writes synthetic tar shards (16 x 16 pixels, all files different) and embeds the first
quarter, half and all of them into new stores. The network only computes means, so the cost is that
of reading, decoding and the engine. "scale-out" is the overhead on top of `extract`: the processor
time of the coordinator (with Dask including the scheduler, in the same process here) and of the
workers for assembling and committing shards. "threads' engine" is the engine of `extract` itself.
Memory is the growth of the coordinator's resident memory during a run; the workers start before
it.

`plan` embeds the images of FOLDER on one core with the engine; the plan's assumptions are options.
The cost is machine-hours times the given price; no price is measured.
`--json` prints one JSON list instead of a table.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import joblib
import numpy as np
from PIL import Image

from featuretl import LinearProbeClassifier, extract_shards
from featuretl.scaleout import ShardedMatrix

STAGES = ("read", "hash", "decode", "resize", "normalise", "forward")
PER_SHARD = 1000


@dataclass(frozen=True)
class Stub:
    """A stub backbone that returns the mean colours of an image, repeated."""

    n_features: int = 384

    @property
    def device(self) -> Any:
        """The CPU."""
        return SimpleNamespace(type="cpu")

    @property
    def preprocessing(self) -> Any:
        """Files are decoded in full."""
        return SimpleNamespace(least_side=0)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that identifies the space of embeddings."""
        return {
            "backbone": {"name": "stub", "tensors": "0" * 64},
            "output": {"n_features": self.n_features, "layers": ["stub"], "pooling": "avg"},
        }

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mean colours: float32 (3,)."""
        return pixels.mean(axis=(0, 1), dtype=np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Stack the inputs into an array (n, 3)."""
        return np.stack(inputs)

    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Return float32 (n, n_features)."""
        return np.tile(batch, (1, self.n_features // 3))


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@click.option("--images", default=200_000, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["loky", "dask"]),
    default="dask",
    show_default=True,
)
@json_option
def engine(images: int, workers: int, engine_name: str, as_json: bool) -> None:
    """Measure the engine's cost per image by number of shards, and the coordinator's memory."""
    table = []
    with tempfile.TemporaryDirectory() as folder, _backend(engine_name, workers):
        shards = list(write_shards(Path(folder), images // PER_SHARD))
        n_workers = workers if engine_name == "loky" else None
        run_engine(shards[: 2 * workers], Path(folder) / "warm-up", n_workers)
        for share in (4, 2, 1):
            some = shards[: len(shards) // share]
            found = run_engine(some, Path(folder) / f"store-{share}", n_workers)
            table.append({"engine": engine_name, "shards": len(some), **found})
    _show(table, as_json)


def write_shards(folder: Path, n: int) -> Iterator[Path]:
    """Write tar shards of JPEGs that all differ in their bytes."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    for shard in range(n):
        path = folder / f"{shard:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(PER_SHARD):
                # Decoders ignore bytes after the end of an image.
                data = buffer.getvalue() + f"{shard} {number}".encode()
                for suffix, content in (("jpg", data), ("cls", b"%d" % (number % 10))):
                    member = tarfile.TarInfo(f"{shard:05d}/{number:05d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        yield path


def run_engine(shards: list[Path], store: Path, workers: int | None) -> dict[str, Any]:
    """Embed shards; return the times and the memory."""
    began, cpu = time.monotonic(), time.process_time()
    with _memory() as memory:
        found = extract_shards(
            shards, Stub(), store=store, workers=workers, runtime="torch", n_jobs=1
        )
    seconds, coordinator = time.monotonic() - began, time.process_time() - cpu
    n, costs = found.statistics.embedded, found.statistics.costs
    assert n == len(shards) * PER_SHARD, found.statistics
    scaled = coordinator + costs["shard"] + costs["commit"]
    inside = sum(costs[stage] for stage in STAGES)
    return {
        "images": n,
        "seconds": round(seconds, 1),
        "scale-out ms": round(1000 * scaled / n, 4),
        "of which coordinator": round(1000 * coordinator / n, 4),
        "threads' engine ms": round(1000 * costs["other"] / n, 4),
        "stages ms": round(1000 * inside / n, 4),
        "coordinator MiB": round(memory.grown / 2**20),
    }


@main.command()
@click.argument("folder", type=click.Path(exists=True))
@click.option("--images", default=1e9, show_default=True)
@click.option("--hours", default=24.0, show_default=True, help="Time limit in hours.")
@click.option("--cores", default=64, show_default=True, help="Cores per machine.")
@click.option(
    "--price", default=2.0, show_default=True, help="Price per machine and hour; an assumption."
)
@click.option(
    "--gpu-rate",
    default=25_000.0,
    show_default=True,
    help="Forward passes in images/s per GPU; an assumption.",
)
@click.option(
    "--gpu-price",
    default=3.0,
    show_default=True,
    help="Price per GPU with its cores and hour; an assumption.",
)
@click.option("--gpu-cores", default=16, show_default=True, help="CPU cores per GPU.")
@click.option(
    "--network",
    default=10.0,
    show_default=True,
    help="Network in Gbit/s per machine; an assumption.",
)
@click.option(
    "--runtime",
    default="onnx",
    show_default=True,
    help="Inference runtime, as in featuretl extract.",
)
@json_option
def plan(
    folder: str, images: float, hours: float, runtime: str, as_json: bool, **machine: float
) -> None:
    """Measure core milliseconds per image; calculate machines, hours, bytes and cost for many."""
    with tempfile.TemporaryDirectory() as store:
        found = extract_shards(folder, store=store, n_jobs=1, runtime=runtime)
    n, costs = found.statistics.embedded, found.statistics.costs
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / n
    stages = {stage: spent / n for stage, spent in costs.items() if stage != "start"}
    measured: dict[str, Any] = {"images": n, "kB": round(size / 1000)}
    measured |= {f"{stage} ms": round(1000 * spent, 3) for stage, spent in stages.items()}
    measured["images/s per core"] = round(1 / sum(stages.values()), 1)
    planned = calculate(stages, size, images, hours, **machine)
    rows = 4 * images * found.n_features / 1e12
    moved = {"images": images, "TB read": images * size / 1e12, "TB float32": rows}
    _show([measured, *planned, {**moved, "shards": images / PER_SHARD}], as_json)


def calculate(
    stages: dict[str, float],
    size: float,
    images: float,
    hours: float,
    *,
    cores: float,
    price: float,
    gpu_rate: float,
    gpu_price: float,
    gpu_cores: float,
    network: float,
) -> Iterator[dict[str, Any]]:
    """Yield the plan for CPU machines, and for GPUs with CPU cores that decode."""
    core_seconds = sum(stages.values())
    feeding = core_seconds - stages["forward"] - stages.get("normalise", 0.0)
    wire = network * 1e9 / 8 / size
    kinds = {
        "CPU": (price, {"cores": cores / core_seconds, "network": wire}),
        "GPU": (
            gpu_price,
            {"feeding cores": gpu_cores / feeding, "forward": gpu_rate, "network": wire},
        ),
    }
    for kind, (hourly, limits) in kinds.items():
        bottleneck = min(limits, key=lambda name: limits[name])
        machine_hours = images / limits[bottleneck] / 3600
        yield {
            "machine": kind,
            **{f"{name} images/s": round(limit) for name, limit in limits.items()},
            "bottleneck": bottleneck,
            "machine-hours": round(machine_hours, 1),
            f"machines for {hours:g} h": int(np.ceil(machine_hours / hours)),
            "cost": round(machine_hours * hourly),
        }


@main.command()
@click.option("--rows", default=5_000_000, show_default=True)
@click.option("--columns", default=384, show_default=True)
@click.option("--classes", default=10, show_default=True)
@json_option
def heads(rows: int, columns: int, classes: int, as_json: bool) -> None:
    """Fit a linear probe on a large ShardedMatrix, with `fit` and in one pass of `partial_fit`."""
    table = []
    with tempfile.TemporaryDirectory() as folder:
        y = np.random.default_rng(0).integers(classes, size=rows)
        X = ShardedMatrix(list(_write_rows(Path(folder), y, columns, classes)))
        some = np.arange(0, rows, max(1, rows // 100_000))
        for method in ("fit", "partial_fit"):
            head, began = LinearProbeClassifier(), time.monotonic()
            with _memory() as memory:
                if method == "fit":
                    head.fit(X, y)
                else:
                    for start in range(0, rows, 100_000):
                        part = slice(start, start + 100_000)
                        head.partial_fit(X[part], y[part], np.arange(classes))
            found = {
                "rows": rows,
                "columns": columns,
                "GiB on disk": round(X.nbytes / 2**30, 2),
                "method": method,
                "s": round(time.monotonic() - began),
                "passes (of the last chunk for partial_fit)": head.n_iter_,
                "memory growth, MiB": round(memory.grown / 2**20),
                "of which not mapped files": round(memory.grown_anonymous / 2**20),
                "accuracy on 100,000 rows": round(head.score(X[some], y[some]), 4),
            }
            table.append(found)
    _show(table, as_json)


def _write_rows(folder: Path, y: np.ndarray, columns: int, classes: int) -> Iterator[Path]:
    """Write rows scattered around a centre for each class, 100,000 per file."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((classes, columns), np.float32) / 8
    for start in range(0, len(y), 100_000):
        part = y[start : start + 100_000]
        path = folder / f"{start:09d}.npy"
        noise = rng.standard_normal((len(part), columns), np.float32)
        np.save(path, (centres[part] + noise).astype(np.float16))
        yield path


def _show(table: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(table, indent=1))
        return
    for row in table:
        click.echo("; ".join(f"{name} {value}" for name, value in row.items()))


@contextlib.contextmanager
def _backend(engine_name: str, workers: int) -> Iterator[None]:
    if engine_name == "loky":
        with joblib.parallel_config(n_jobs=workers):
            yield
        return
    from featuretl.scaleout.cluster import dask_workers

    with dask_workers(workers=workers):
        yield


@contextlib.contextmanager
def _memory() -> Iterator[Any]:
    """Watch this process's memory; yield an object with `grown` and `grown_anonymous` in bytes."""
    found = SimpleNamespace(grown=0, grown_anonymous=0)
    start, done = _resident(), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            now = _resident()
            found.grown = max(found.grown, now[0] - start[0])
            found.grown_anonymous = max(found.grown_anonymous, now[1] - start[1])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def _resident() -> tuple[int, int]:
    """Return resident and anonymous resident memory in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(values[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
