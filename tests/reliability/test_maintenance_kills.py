"""Killing repair, rebuild or garbage collection before any operation loses no intact row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from known_rows import RECIPE, open_space, present, put

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning
from featuretl.store.verify import verify

MAINTAINER = Path(__file__).with_name("maintainer.py")
GOOD, DAMAGED = {1, 2, 3, 7}, {4, 5, 6, 8}
ALL = GOOD | DAMAGED


@pytest.fixture
def before(tmp_path) -> Path:
    """A store with every kind of damage, an old space, and leftovers of killed runs."""
    store = EmbeddingStore(tmp_path / "before")
    for numbers in ([1, 2], [3, 4], [5, 6], [7], [8]):
        put(store, numbers)
    old = store.open_space({**RECIPE, "backbone": {"name": "old"}}, np.ones(24, np.float32), {})
    with open_space(store) as space:
        files = {uuid: space.folder / f"{uuid}.npy" for uuid in space._known}
    by_age = sorted(files.values(), key=lambda path: path.stat().st_mtime_ns)
    # Row 3 is in a damaged segment and, again, in an intact one.
    by_age[1].write_bytes(flipped(by_age[1].read_bytes()))
    by_age[2].unlink()
    keys = by_age[4].with_suffix(".keys")
    keys.write_bytes(keys.read_bytes()[:-1])
    with pytest.warns(FeatureTLWarning, match="damaged segment"):
        put(EmbeddingStore(store.path), [3])
    store.view("f" * 64, (2, 3), iter([np.ones((2, 3), np.float32)]))
    view = store.path / "views" / f"{'f' * 64}.npy"
    view.write_bytes(flipped(view.read_bytes()))
    half = old.folder.with_name("half.partial")
    half.mkdir()
    (half / "space.json").write_text("{")
    for path in (view, half, old.folder / "space.json"):
        os.utime(path, (1, 1))
    return store.path


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.filterwarnings("ignore::featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("index", ["whole", "damaged", "lost"])
@pytest.mark.parametrize("work", ["repair", "rebuild", "collect"])
def test_maintenance_killed_before_any_operation_loses_no_good_row(before, tmp_path, work, index):
    if index == "damaged":
        data = (before / "index.sqlite").read_bytes()
        (before / "index.sqlite").write_bytes(data[: len(data) // 2])
    elif index == "lost":
        (before / "index.sqlite").unlink()
    subprocess.run(
        [sys.executable, str(MAINTAINER), str(before), str(tmp_path / "after"), work],
        check=True,
        timeout=300,
    )
    copies = sorted((tmp_path / "after").iterdir(), key=lambda path: int(path.name))
    assert len(copies) > 5  # the last run was not killed
    for copy in copies:
        assert present(EmbeddingStore(copy), ALL) == GOOD
        # The next repair completes the work, and lost rows are embedded again.
        verify(EmbeddingStore(copy), repair=True)
        assert verify(EmbeddingStore(copy)) == []
        assert set(put(EmbeddingStore(copy), ALL)) == DAMAGED
        assert present(EmbeddingStore(copy), ALL) == ALL


def test_what_is_damaged_here_is_noticed(before):
    with pytest.warns(FeatureTLWarning, match="damaged segment"):
        assert present(EmbeddingStore(before), ALL) == GOOD
    assert sum(finding.damaged for finding in verify(EmbeddingStore(before))) == 4
