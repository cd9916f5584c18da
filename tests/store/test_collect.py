"""Garbage collection frees the least recently used spaces, and no extraction or reader fails."""

import fcntl
import os
import time

import numpy as np
import pytest

from featuretl import EmbeddingStore
from featuretl.exceptions import StoreError
from featuretl.store.collect import collect
from featuretl.store.keys import space_id
from featuretl.store.lookup import MISSING, keys_array

KEYS = [bytes([i]) * 32 for i in range(1, 6)]
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)


def recipe_of(name):
    return {
        "backbone": {"name": name},
        "output": {"n_features": 4, "layers": ["pre_logits"], "pooling": "auto"},
    }


def fill(store, name, age=0.0):
    """Add a space that was used `age` seconds ago."""
    space = store.open_space(recipe_of(name), np.ones(4, np.float32), {})
    with space:
        space.append(KEYS, ROWS)
    then = time.time() - age
    os.utime(store.path / "spaces" / space_id(recipe_of(name), 0) / "space.json", (then, then))
    return space


def names(store):
    return {info.recipe["backbone"]["name"] for info in store.info()}


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "store")


def test_an_empty_store_has_nothing_to_free(store):
    freed = collect(store, max_size=0)
    assert (freed.spaces, freed.views, freed.bytes) == ([], 0, 0)
    assert not store.path.exists()


def test_without_limits_embeddings_stay(store):
    fill(store, "a", age=10**9)
    assert collect(store).bytes == 0
    assert names(store) == {"a"}


def test_what_was_not_used_for_long_goes(store):
    fill(store, "old", age=1000)
    fill(store, "new", age=10)
    freed = collect(store, older_than=100)
    assert [info.recipe["backbone"]["name"] for info in freed.spaces] == ["old"]
    assert freed.bytes > ROWS.nbytes
    assert names(store) == {"new"}
    assert len(list((store.path / "spaces").iterdir())) == 1


def test_use_makes_young(store):
    fill(store, "old", age=1000)
    assert store.find_space(recipe_of("old")) is not None
    assert collect(store, older_than=100).spaces == []


def test_views_go_first_then_the_least_recently_used_until_it_fits(store):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        fill(store, name, age=100 * (age + 1))
    view = store.view("ab" * 32, (5, 4), iter([ROWS]))
    one = store.info()[0].bytes
    freed = collect(store, max_size=3 * one)
    assert (freed.spaces, freed.views) == ([], 1)
    np.testing.assert_array_equal(view, ROWS)  # a reader's map outlives the file
    freed = collect(store, max_size=one)
    assert [info.recipe["backbone"]["name"] for info in freed.spaces] == ["oldest", "middle"]
    assert names(store) == {"newest"}


def test_a_reader_keeps_its_rows_and_what_is_freed_can_be_made_again(store):
    fill(store, "a")
    reader = store.find_space(recipe_of("a"))
    found = reader.find(keys_array(KEYS))
    collect(store, max_size=0)
    np.testing.assert_array_equal(reader.segment_rows(0), ROWS)
    assert (found != MISSING).all()
    again = fill(store, "a")
    assert (again.find(keys_array(KEYS)) != MISSING).all()


def test_nothing_is_freed_beside_an_extraction(store):
    with fill(store, "a"), pytest.raises(StoreError, match="in use by an extraction"):
        collect(EmbeddingStore(store.path), max_size=0)
    assert names(store) == {"a"}


def test_nothing_is_freed_where_there_are_no_locks(store, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    fill(store, "a")
    with pytest.raises(StoreError, match="No locks available"):
        collect(store, max_size=0)
    assert names(store) == {"a"}


def test_an_extraction_that_began_before_says_so(store):
    space = store.open_space(recipe_of("a"), np.ones(4, np.float32), {})
    collect(store, max_size=0, older_than=-1)
    with pytest.raises(StoreError, match="was cleared"), space:
        pass
    fill(store, "a")  # and the lock is free


def test_leftovers_of_killed_runs_go_when_they_are_old(store):
    fill(store, "a")
    folder = next((store.path / "spaces").iterdir())
    old, young = folder / "x.npy.partial", folder / "y.npy.partial"
    half = store.path / "spaces" / "abc.partial"
    half.mkdir()
    for path in (old, young):
        path.write_bytes(b"half")
    for path in (old, half):
        os.utime(path, (1, 1))
    collect(store)
    assert not old.exists()
    assert not half.exists()
    assert young.exists()


def test_a_kill_between_index_and_files_loses_nothing_but_time(store):
    space = fill(store, "a")
    store.index.forget(space.id)
    reader = EmbeddingStore(store.path).find_space(recipe_of("a"))
    assert (reader.find(keys_array(KEYS)) == MISSING).all()
    with reader:
        reader.append(KEYS, ROWS)
    assert (reader.find(keys_array(KEYS)) != MISSING).all()
