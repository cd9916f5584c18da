"""Fixtures: the files of a store's segments, and a recipe that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from known_rows import RECIPE


@pytest.fixture
def segment_files(cache: Path) -> Callable[..., list[Path]]:
    """Return the files of all segments with a suffix, in the order of their commits."""

    def files(suffix: str = ".npy") -> list[Path]:
        found = cache.glob(f"spaces/*/*{suffix}")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)

    return files


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete the recipe of the known rows for exports."""
    monkeypatch.setitem(RECIPE["backbone"], "tensors", "0")
