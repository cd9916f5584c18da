"""Extraction from a warm store: images per second by file metadata and by hashing.

    python benchmarks/warm.py [--images 50000] [--repeats 3] [--json]
    python benchmarks/warm.py --rows 10000000      (a store of 600 MB in the temporary folder)

Small JPEGs and a stub network, because the timed runs embed nothing. "extract" ends when every row
was found and verified against the checksum of its segment; "matrix" when the rows are in memory.
The files were just written, so they are read from the page cache.

With --rows: opening a store of that many rows of 8 float16 columns and finding 10,000 keys, each in
a new process, of 20 segments or of all. The first time, these segments are also checked.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import click
import numpy as np
import torch
from common import show
from extract import write_photographs

from featuretl import EmbeddingStore, extract
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.space import SEGMENT_ROWS


class StubBackbone:
    """A stub backbone; an embedding repeats one pixel 1,280 times."""

    files: ClassVar[list[Any]] = []
    device = torch.device("cpu")
    preprocessing = SimpleNamespace(least_side=0)
    recipe: ClassVar[dict[str, Any]] = {
        "backbone": {"name": "stand-in", "tensors": "none"},
        "output": {"layers": ["pre_logits"], "pooling": "auto", "n_features": 1280},
    }

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Return the red value of one pixel: float32 (1,)."""
        return torch.tensor([float(pixels[0, 0, 0])])

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack the inputs into a tensor (n, 1)."""
        return torch.stack(inputs)

    def forward(self, batch: torch.Tensor) -> np.ndarray:
        """Return the embeddings (n, 1280)."""
        return batch.expand(-1, 1280).numpy()


def timed(paths: list[str], store: EmbeddingStore) -> tuple[float, float]:
    """Return images per second until all rows are found, and until they are in memory."""
    began = time.perf_counter()
    extraction = extract(paths, StubBackbone(), store=store, runtime="torch")
    found = time.perf_counter()
    extraction.to_numpy()
    return len(paths) / (found - began), len(paths) / (time.perf_counter() - began)


ROWS_RECIPE = {"backbone": {"name": "rows"}, "output": {"n_features": 8}}


def keys_of(segment: int, n: int) -> list[bytes]:
    """Return the keys of a segment of `write_rows`."""
    data = np.random.default_rng(segment).bytes(32 * n)
    return [data[start : start + 32] for start in range(0, len(data), 32)]


def write_rows(path: Path, rows: int) -> None:
    """Write a store of random rows, in full segments."""
    space = EmbeddingStore(path).open_space(ROWS_RECIPE, np.ones(8, np.float32), {})
    with space:
        for start in range(0, rows, SEGMENT_ROWS):
            n = min(SEGMENT_ROWS, rows - start)
            embeddings = np.random.default_rng(start).standard_normal((n, 8)).astype(np.float16)
            space.append(keys_of(start, n), embeddings)


def read_rows(path: Path, rows: int, segments: int, n: int = 10_000) -> dict[str, Any]:
    """Open the store of `write_rows`, and find keys of some of its segments, twice."""
    before = peak()
    starts = np.arange(0, rows - SEGMENT_ROWS + 1, SEGMENT_ROWS)
    starts = starts[np.linspace(0, len(starts) - 1, min(segments, len(starts))).astype(int)]
    each = -(-n // len(starts))
    wanted = keys_array(
        [key for s in starts.tolist() for key in keys_of(s, SEGMENT_ROWS)[:each]][:n]
    )
    seconds: dict[str, Any] = {"rows": rows, "segments of the keys": len(starts)}

    def clock(name: str, work: Any) -> Any:
        began, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds[f"{name}, ms"] = 1e3 * (time.perf_counter() - began)
        seconds[f"{name}, core ms"] = 1e3 * (time.process_time() - cpu)
        return result

    space = clock("open", lambda: EmbeddingStore(path).find_space(ROWS_RECIPE))
    for name in ("find", "find again"):
        assert (clock(name, lambda: space.find(wanted)) != MISSING).all()
    seconds["peak, MiB more"] = (peak() - before) / 1024
    seconds["descriptors"] = len(list(Path("/proc/self/fd").iterdir()))
    return seconds


def peak() -> int:
    """Return the peak memory of this process in KiB; `ru_maxrss` includes that of its parent."""
    (found,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found)


def measure_rows(rows: int, repeats: int) -> list[dict[str, Any]]:
    """Return the medians of `read_rows` in new processes."""
    table = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        write_rows(path, rows)
        for segments in (20, rows):
            runs = []
            for _ in range(repeats):
                with get_context("spawn").Pool(1) as pool:
                    runs.append(pool.apply(read_rows, (path, rows, segments)))
            table.append({key: statistics.median(run[key] for run in runs) for key in runs[0]})
    return table


@click.command(help=__doc__)
@click.option("--rows", default=0, help="Rows of a store to open and search.")
@click.option("--images", default=50_000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(rows: int, images: int, repeats: int, as_json: bool) -> None:
    """Run the benchmark and print it."""
    if rows:
        show(measure_rows(rows, repeats), as_json)
        return
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        photographs.mkdir()
        paths = write_photographs(photographs, images, (32, 24))
        time.sleep(2.1)  # the memo skips files modified less than 2 s ago
        path = Path(folder) / "store"
        extract(paths, StubBackbone(), store=EmbeddingStore(path), runtime="torch")
        for by in ("metadata", "hash"):
            runs = []
            for _ in range(repeats):
                if by == "hash":
                    (path / "memo.sqlite").unlink()
                runs.append(timed(paths, EmbeddingStore(path)))
            extracted, matrix = (statistics.median(column) for column in zip(*runs, strict=True))
            table.append({"by": by, "extract": extracted, "matrix": matrix})
    show(table, as_json)


if __name__ == "__main__":
    main()
