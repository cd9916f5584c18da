"""Fixtures: files, tar files and manifests to read, and the samples of their shards."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from featuretl.images import shards as shards_module
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import Sample
from featuretl.images.sources import ImageList


@pytest.fixture(scope="session")
def data(photos: list[str]) -> list[bytes]:
    """Six JPEG files."""
    return [Path(path).read_bytes() for path in photos[:6]]


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognise files that were just written by their state, as if they were old."""
    monkeypatch.setattr(shards_module, "RACY_NS", -(10**18))


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system in memory, behind ``memory://`` URLs."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


@pytest.fixture
def make() -> Callable[..., Path]:
    """Return a function that creates empty files in a folder, and returns the folder."""

    def create(root: Path, *names: str) -> Path:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return root

    return create


@pytest.fixture
def relative() -> Callable[[ImageList, Path], list[str]]:
    """Return a function that gives the paths of a list, relative to a folder."""
    return lambda images, root: [os.path.relpath(path, root) for path in images.paths]


@pytest.fixture
def assert_one_printable_sentence() -> Callable[[BaseException], None]:
    """Return a function that checks the message of an error."""

    def check(error: BaseException) -> None:
        message = str(error)
        assert message.isprintable()  # no newline, ESC, bidi or surrogate character
        assert message.endswith(".") or ": " in message

    return check


@pytest.fixture(params=["csv", "parquet"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes columns as a manifest, once per format."""

    def manifest(columns: dict[str, list[Any]]) -> Path:
        path = tmp_path / f"manifest.{request.param}"
        frame = pd.DataFrame(columns)
        if request.param == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path)
        return path

    return manifest


@pytest.fixture
def write_tar() -> Callable[..., Path]:
    """Return a function that writes (name, content) pairs, or a dict, as a tar file."""

    def write(
        path: Path, members: dict[str, bytes] | Iterable[tuple[str, bytes]], mode: str = "w"
    ) -> Path:
        with tarfile.open(path, mode) as tar:
            for name, content in members.items() if isinstance(members, dict) else members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def samples_of() -> Callable[..., list[Sample]]:
    """Return a function that reads all samples of a source."""
    return lambda source, **options: [
        sample for shard in find_shards(source, **options) for sample in shard.samples()
    ]
