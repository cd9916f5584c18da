"""Extraction from a warm store: images per second by file metadata and by hashing.

    python benchmarks/warm.py [--images 50000] [--repeats 3] [--json]

Small JPEGs and a stub network, because the timed runs embed nothing. "extract" ends when every row
was found and verified against the checksum of its segment; "matrix" when the rows are in memory.
The files were just written, so they are read from the page cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import click
import numpy as np
import torch
from common import show
from extract import write_photographs

from featuretl import EmbeddingStore, extract


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


@click.command(help=__doc__)
@click.option("--images", default=50_000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(images: int, repeats: int, as_json: bool) -> None:
    """Run the benchmark and print it."""
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
