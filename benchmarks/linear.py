"""Time and memory of cold extractions by number of images, and time to the first embedding.

    python benchmarks/linear.py [--images 1000 10000 60000] [--json]

Small JPEGs (120 x 90) and the default backbone, with a new store and a new process for each number.
Peak memory is that of the whole process. "start s" is the time from the start of Python to the
embedding of one image, also in a new process; the median of three.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from common import show
from extract import write_photographs
from finetune import in_own_process, peak_mib

_ONE = "import sys, featuretl; featuretl.extract(sys.argv[1:])"


def embed(paths: list[str], runtime: str) -> dict[str, float]:
    """Embed into a new store; return the time and the peak memory."""
    from featuretl import EmbeddingStore, extract

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        extraction = extract(paths, store=EmbeddingStore(folder), runtime=runtime)
        seconds = time.perf_counter() - began
    peak = peak_mib()
    return {"s": seconds, "ms per image": 1000 * seconds / len(extraction.keys), "peak MiB": peak}


def start(path: str) -> float:
    """Return the seconds from the start of Python to the first embedding."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _ONE, path], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@click.command(help=__doc__)
@click.option("--images", default=[1_000, 10_000, 60_000], multiple=True, show_default=True)
@click.option("--runtime", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: tuple[int, ...], runtime: str, as_json: bool) -> None:
    """Run the benchmark and print it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), max(images), (120, 90))
        table: list[dict[str, Any]] = [
            {"images": n, **in_own_process(embed, paths[:n], runtime)} for n in images
        ]
        first = start(paths[0])
    for row in table:
        row["start s"] = first
    show(table, as_json)


if __name__ == "__main__":
    main()
