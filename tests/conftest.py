"""Fixtures: real images, a separate store for each test, and no network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl import EmbeddingStore
from featuretl.export import graph
from featuretl.extraction.engine import Run

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture(scope="session", autouse=True)
def _printed() -> Iterator[None]:
    """Print what commands print: a failed test shows it, and is skipped if it names an extra."""
    invoke = CliRunner.invoke

    def shown(self: CliRunner, *args: Any, **options: Any) -> Result:
        result = invoke(self, *args, **options)
        print(result.output)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CliRunner, "invoke", shown)
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache of this test and of its child processes."""
    path = tmp_path / "cache"
    monkeypatch.setenv("FEATURETL_CACHE", str(path))
    return path


@pytest.fixture
def store(cache: Path) -> EmbeddingStore:
    return EmbeddingStore(cache)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys of all images that extractions in this process pass through a network."""
    keys: list[bytes] = []
    append = Run._append

    def record(self: Run, images: Any, rows: np.ndarray) -> None:
        append(self, images, rows)
        keys.extend(image.key for image in images)

    monkeypatch.setattr(Run, "_append", record)
    return keys


@pytest.fixture(scope="session")
def _cached_export() -> Callable[..., bytes]:
    exports: dict[Any, bytes] = {}
    export = graph.export_any_number

    def cached(module: Any, *args: Any) -> bytes:
        tensors = [tensor.numpy().tobytes() for tensor in module.state_dict().values()]
        key = repr(module), b"".join(tensors), repr(args), getattr(module, "pooling", "")
        if key not in exports:
            exports[key] = export(module, *args)
        return exports[key]

    return cached


@pytest.fixture(scope="module")
def exported_once(_cached_export: Callable[..., bytes]) -> Iterator[None]:
    """Reuse the exports of equal networks within a session, because an export takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "export_any_number", _cached_export)
        yield


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 JPEG crops of two real photographs, in the class folders ``temple`` and ``flower``."""
    root = tmp_path_factory.mktemp("photos")
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for i in range(12):
            top, left = 30 * i, 25 * (i * 5 % 12)
            crop = photo[top : top + 97, left : left + 120]
            Image.fromarray(crop).save(root / name / f"{i:02d}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def photos(photo_folder: Path) -> list[str]:
    """The sorted paths of the 24 crops: first the flowers, then the temples."""
    return sorted(map(str, photo_folder.rglob("*.jpg")))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """A real photograph: uint8 (427, 640, 3)."""
    return load_sample_images().images[0]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the real data sets, shared by all tests and all pytest-xdist processes."""
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each of its processes a subfolder of the run's folder.
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; skips the test if it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data sets in ../shared/data")
    return SHARED_DATA
