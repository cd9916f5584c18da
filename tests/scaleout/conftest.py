"""Fixtures: a tiny network, many small photographs, and a Dask cluster of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl.backbones.spec import BackboneSpec
from featuretl.scaleout.extraction import ShardedExtraction

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

# Every worker imports this: it logs each embedded image, and one image kills the worker.
PRELOADED = """
import os
from PIL import Image
from featuretl.extraction.engine import Run

if not hasattr(Run, "whole"):  # Dask preloads more than once
    Run.append, Run.whole = Run._append, staticmethod(Image.open)

def telling(self, images, rows):
    with open(os.environ["FORWARDED"], "a") as file:
        file.write("".join(image.key.hex() + "\\n" for image in images))
    self.append(images, rows)

def fatal(file, **options):
    if file.getvalue()[-6:] == b"poison":
        os._exit(9)
    return Run.whole(file, **options)

Run._append, Image.open = telling, fatal
"""


@pytest.fixture(autouse=True)
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the modification times of files that were just written."""
    monkeypatch.setattr("featuretl.images.shards.RACY_NS", -(10**18))


@pytest.fixture(scope="session")
def tiny() -> BackboneSpec:
    return TINY


@pytest.fixture(scope="session")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 different JPEG crops of two photographs, 48 x 64, in two class folders."""
    root = tmp_path_factory.mktemp("many")
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for i in range(200):
            crop = photo[i : i + 48, 2 * i : 2 * i + 64]
            Image.fromarray(crop).save(root / name / f"{i:03d}.jpg")
    return root


class Cluster:
    """A scheduler and workers, started in separate processes by Dask's commands."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.forwarded = folder / "forwarded.txt"
        self.forwarded.touch()
        (folder / "preloaded.py").write_text(PRELOADED)
        # The decoder's child processes load it through their sitecustomize.
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(
            "import runpy, sys\n"
            "if 'featuretl.images.isolated' in sys.orig_argv:\n"
            f"    runpy.run_path({str(folder / 'preloaded.py')!r})\n"
        )
        self._log = (folder / "log.txt").open("wb")
        self._file = folder / "scheduler.json"
        paths = [str(folder / "site"), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
        self._environment = {
            **os.environ,
            "FORWARDED": str(self.forwarded),
            "PYTHONPATH": os.pathsep.join(paths),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
        }
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
        )
        while not self._file.exists():
            assert self.scheduler.poll() is None
            time.sleep(0.1)
        preload = ["--preload", str(folder / "preloaded.py"), "--no-dashboard"]
        n = ["--host", "127.0.0.1", "--nworkers", str(workers), "--nthreads", "1"]
        self._nannies = self._start("worker", *n, *preload, "--local-directory", str(folder))
        self.address = str(self._file)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", str(self._file)],
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def keys(self) -> list[str]:
        """Return the sha256 of each embedded image, once per embedding."""
        return self.forwarded.read_text().split()

    def end(self) -> None:
        for process in (self.scheduler, self._nannies):
            with_all = os.getpgid(process.pid) if process.poll() is None else None
            if with_all is not None:
                os.killpg(with_all, signal.SIGKILL)
            process.wait()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that a test can kill."""
    (tmp_path / "doomed").mkdir()
    cluster = Cluster(tmp_path / "doomed", 2)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster shared by the tests of a module."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), 2)
    yield cluster
    cluster.end()


@pytest.fixture(scope="session")
def expected(many_photos: Path) -> np.ndarray:
    """Embeddings of `many_photos` by `extract`, in the same order: float32 (400, d)."""
    from featuretl import extract
    from featuretl.images.sources import find_images

    images = find_images([many_photos])
    return extract(images.paths, TINY, runtime="torch", batch_size=10).to_numpy()


@pytest.fixture(scope="session")
def embedded(photos: list[str], tiny: BackboneSpec) -> np.ndarray:
    """Embeddings of `photos` by `extract`: float32 (24, d)."""
    from featuretl import extract

    return extract(photos, tiny, runtime="torch", batch_size=10).to_numpy()


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., np.ndarray]:
    """A function that returns all embeddings of a sharded extraction, float32 (n, d)."""
    return lambda extraction: np.concatenate([rows for rows, _, _ in extraction.shards()])


@pytest.fixture(scope="session")
def column() -> Callable[..., list[Any]]:
    """A function that returns a column of the tables of a sharded extraction."""

    def values(extraction: ShardedExtraction, name: str) -> list[Any]:
        tables = [table for _, table, _ in extraction.shards()]
        return [value for table in tables for value in table.column(name).to_pylist()]

    return values
