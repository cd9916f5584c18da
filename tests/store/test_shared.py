"""The shared store: shards appear atomically, damage is reported, and a later entry wins."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest

from featuretl import extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ParameterError, StoreError
from featuretl.store.shared import ShardEntry, SharedSpace, SharedStore, metadata_table

D = 8
RECIPE = {"backbone": {"name": "x", "tensors": "0"}, "output": {"n_features": D}}
KEY = "ab" * 32


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "shared")
    else:
        yield "memory://shared"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).random((3, D), np.float32)


@pytest.fixture
def space(url) -> SharedSpace:
    return SharedStore(url).open_space(RECIPE, np.ones(D, np.float32), {"torch": "1"})


def put(space: SharedSpace, rows: np.ndarray, key: str = KEY) -> ShardEntry:
    table = metadata_table(
        ["a", "b", "d"], ["x", None, "y"], [bytes([i]) * 32 for i in range(3)], [0, 1, 3]
    )
    return space.put(key, "one.tar", 4, rows, table, [(2, "c", "no image")])


def test_what_was_put_is_loaded_by_another(url, space, rows):
    entry = put(space, rows)
    (again,) = SharedStore(url).spaces()
    assert again.recipe == RECIPE
    assert again.keys() == [KEY]
    assert again.entry(KEY) == entry
    assert (entry.images, entry.rows, entry.failures) == (4, 3, ((2, "c", "no image"),))
    found, table = again.load(entry)
    np.testing.assert_array_equal(found, rows)
    assert not found.flags.writeable
    assert table.to_pylist()[2] == {"path": "d", "label": "y", "sha256": b"\2" * 32, "number": 3}
    assert list(again.entries(["cd" * 32, KEY])) == [None, entry]


def test_a_shard_without_any_embedding_has_no_files(url, space):
    entry = space.put(KEY, "one.tar", 1, np.empty((0, D), np.float32), None, [(0, "c", "no image")])
    assert entry.files == {}
    found, table = space.load(entry)
    assert found.shape == (0, D)
    assert len(table) == 0


def test_a_shard_that_is_put_again_leaves_readers_of_the_first_their_files(space, rows):
    first, second = put(space, rows), put(space, rows + 1)
    assert first.uuid != second.uuid
    assert space.entry(KEY) == second
    np.testing.assert_array_equal(space.load(first)[0], rows)


def test_every_truncation_of_an_entry_is_no_entry(space, rows):
    data = put(space, rows).to_json()
    assert ShardEntry.from_json(data).key == KEY
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"\w"):
            ShardEntry.from_json(data[:end])
    for at in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[at] ^= 1
        with pytest.raises(ValueError, match=r"\w"):
            ShardEntry.from_json(bytes(flipped))


@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("damage", ["shorter", "flipped", "gone"])
def test_damaged_files_of_a_shard_are_named(tmp_path, rows, kind, damage):
    space = SharedStore(tmp_path).open_space(RECIPE, np.ones(D, np.float32), {})
    entry = put(space, rows)
    (path,) = tmp_path.rglob(f"*.{kind}")
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.unlink()
    if damage != "gone":
        path.write_bytes(bytes(data) if damage == "flipped" else bytes(data[:-9]))
    with pytest.raises(StoreError, match=rf"one\.tar .* is damaged \({entry.uuid}\.{kind}: it"):
        space.load(entry)


def test_an_entry_cannot_name_files_elsewhere(space, rows):
    entry = put(space, rows)
    forged = ShardEntry(**{**vars(entry), "uuid": "../../../../../etc/passwd"}).to_json()
    with pytest.raises(ValueError, match="uuid"):
        ShardEntry.from_json(forged)


def test_a_golden_image_that_differs_starts_another_generation(url, space):
    store = SharedStore(url)
    assert store.open_space(RECIPE, np.ones(D, np.float32) * 2, {}).id == space.id
    other = np.arange(D, dtype=np.float32)
    with pytest.warns(FeatureTLWarning, match="golden image"):
        new = store.open_space(RECIPE, other, {})
    assert new.id != space.id
    assert store.open_space(RECIPE, other, {}).id == new.id
    assert len(store.spaces()) == 2


def test_a_damaged_or_foreign_record_is_named(tmp_path):
    store = SharedStore(tmp_path)
    space = store.open_space(RECIPE, np.ones(D, np.float32), {})
    record = tmp_path / "spaces" / space.id / "space.json"
    record.write_bytes(record.read_bytes()[:-20])
    with pytest.raises(StoreError, match="is damaged"):
        store.open_space(RECIPE, np.ones(D, np.float32), {})


def test_a_lost_record_is_not_replaced_by_one_of_another_golden_image(url, space, rows):
    put(space, rows)
    space._folder._fs.rm(f"{space._folder._root}/spaces/{space.id}/space.json")
    with pytest.raises(StoreError, match="record is missing"):
        SharedStore(url).open_space(RECIPE, np.ones(D, np.float32), {})


def test_the_folder_of_a_local_store_is_refused(store, photos):
    extract(photos[:1], BackboneSpec.of("test", "test_resnet", weights="random"), store=store)
    with pytest.raises(StoreError, match="is a local embedding store"):
        SharedStore(store.path).open_space(RECIPE, np.ones(D, np.float32), {})


def test_a_write_that_fails_leaves_no_shard(tmp_path, rows, monkeypatch):
    space = SharedStore(tmp_path).open_space(RECIPE, np.ones(D, np.float32), {})

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        put(space, rows)
    assert space.keys() == []
    assert not list(tmp_path.rglob("*.partial"))


def test_file_systems_that_are_not_there_are_named():
    with pytest.raises(ParameterError, match="on no file system that can be used here"):
        SharedStore("no-such-protocol://bucket")
