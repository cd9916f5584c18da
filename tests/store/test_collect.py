"""Garbage collection, compaction and the size limit: no extraction or reader loses rows."""

from __future__ import annotations

import fcntl
import os
import time

import numpy as np
import pytest
from known_rows import RECIPE, append, found_in, key, open_space, present, put, row, take

from featuretl import EmbeddingStore, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, ImageError, StoreError
from featuretl.store import collect as collect_module
from featuretl.store.collect import collect
from featuretl.store.format import write_segment
from featuretl.store.keys import space_id
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.verify import verify

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
    np.testing.assert_array_equal(reader.gather(found), ROWS)
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


N = 12


@pytest.fixture
def scattered(store) -> EmbeddingStore:
    """A store with a segment for each of N images."""
    for number in range(N):
        put(store, [number])
    return store


def test_many_small_segments_become_one_with_the_same_rows(scattered, cache, segment_files):
    assert collect(scattered).compacted == N
    assert [info.segments for info in scattered.info()] == [1]
    assert len(segment_files()) == len(segment_files(".keys")) == 1
    assert present(scattered, range(N)) == present(EmbeddingStore(cache), range(N)) == {*range(N)}
    assert verify(scattered) == []
    assert collect(scattered).compacted == 0
    scattered.index.rebuild()
    assert present(EmbeddingStore(cache), range(N)) == {*range(N)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("opened", [0, 5, N])
def test_a_reader_from_before_finds_every_row(scattered, cache, opened):
    reader = scattered.find_space(RECIPE)
    keys = keys_array([key(number) for number in range(N)])
    locations = reader.find(keys[:opened])
    assert collect(EmbeddingStore(cache)).compacted == N
    expected = np.stack([row(number) for number in range(N)])
    np.testing.assert_array_equal(reader.gather(locations), expected[:opened])
    assert found_in(reader, list(range(N))) == {*range(N)}
    assert len(reader.all_rows()[0]) == N
    with open_space(scattered) as space:
        assert take(space, range(N)) == []


def test_segments_of_full_size_stay_and_groups_fit_into_one(scattered, monkeypatch, segment_files):
    monkeypatch.setattr(collect_module, "SEGMENT_ROWS", 5)
    put(scattered, range(20, 23))  # more than half a segment
    large = max(segment_files(), key=lambda path: path.stat().st_size)
    assert collect(scattered).compacted == N
    assert large.exists()
    assert sorted(len(np.load(path)) for path in segment_files()) == [2, 3, 5, 5]
    assert present(scattered, range(N)) == {*range(N)}


def test_wide_rows_make_short_segments(scattered, monkeypatch, segment_files):
    monkeypatch.setattr(collect_module, "SEGMENT_BYTES", 3 * segment_files()[0].stat().st_size)
    collect(scattered)
    assert [len(np.load(path)) for path in segment_files()] == [3] * (N // 3)


def test_a_key_in_several_segments_is_kept_once(store, cache):
    with open_space(store) as one, open_space(EmbeddingStore(cache)) as two:
        append(one, take(one, [1, 2]))
        two.claim([key(2)], force=True)[0]
        two.append([key(2)], row(2)[None])
    assert collect(store).compacted == 2
    assert [info.rows for info in store.info()] == [2]
    assert present(store, [1, 2]) == {1, 2}


def test_a_damaged_segment_stays_for_verify_to_name(scattered, segment_files):
    torn = segment_files()[3]
    torn.write_bytes(torn.read_bytes()[:-1])
    assert collect(scattered).compacted == N - 1
    assert [finding.path for finding in verify(scattered)] == [torn]
    with pytest.warns(FeatureTLWarning, match="damaged segment"):
        assert len(present(scattered, range(N))) == N - 1


def test_a_full_disk_costs_the_compaction_only(scattered, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    scattered.view("ab" * 32, (2, 3), iter([np.ones((2, 3), np.float32)]))
    monkeypatch.setattr(collect_module, "write_segment", full)
    with pytest.warns(FeatureTLWarning, match="No space left on device"):
        freed = collect(scattered, older_than=-60, keep=scattered.info()[0].id)
    assert (freed.views, freed.compacted) == (1, 0)
    assert present(scattered, range(N)) == {*range(N)}


def test_nothing_is_compacted_beside_an_extraction(scattered, cache, segment_files):
    with open_space(scattered), pytest.raises(StoreError, match="in use by an extraction"):
        collect(EmbeddingStore(cache))
    assert len(segment_files()) == N


def test_what_a_kill_left_of_merged_segments_goes_when_it_is_old(
    scattered, cache, monkeypatch, segment_files
):
    def unlink(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "unlink_segment", unlink)
        with pytest.raises(KeyboardInterrupt):
            collect(scattered)
    assert len(segment_files()) == N + 1
    uncommitted = scattered.find_space(RECIPE).folder / f"{'a' * 32}.keys"
    write_segment(
        uncommitted.parent,
        uncommitted.stem,
        uncommitted.parent.name,
        keys_array([key(N)]),
        row(N)[None],
    )
    assert collect(scattered).compacted == 0
    assert len(segment_files()) == N + 2  # they are young
    for path in segment_files(".keys"):
        os.utime(path, (1, 1))
    collect(scattered)
    assert len(segment_files()) == len(segment_files(".keys")) == 2
    assert uncommitted.exists()  # no other segment holds its row
    assert present(EmbeddingStore(cache), range(N)) == {*range(N)}


POOLINGS = ("auto", "max", "avg+max")


def embed(images, pooling, store, **options):
    spec = BackboneSpec.of("test", "test_resnet", weights="random", pooling=pooling)
    return extract(images, spec, store=store, n_jobs=1, **options)


def poolings(store):
    return {info.recipe["output"]["pooling"] for info in store.info()}


@pytest.fixture
def images(pixels):
    return [pixels[:64, 40 * i : 40 * i + 64] for i in range(3)]


def test_what_was_used_longest_ago_goes_when_an_extraction_ends(images, cache):
    for pooling in POOLINGS[:2]:
        embed(images, pooling, EmbeddingStore(cache))
    embed(images, POOLINGS[0], EmbeddingStore(cache))  # a use makes it younger than the other
    one = EmbeddingStore(cache).info()[0].bytes
    limited = EmbeddingStore(cache, max_size=3 * one)
    third = embed(images, POOLINGS[2], limited)  # twice as wide as the others
    assert poolings(limited) == {POOLINGS[0], POOLINGS[2]}
    assert third.to_numpy().shape == (3, 192)
    assert embed(images, POOLINGS[2], limited).statistics.cached == 3


def test_within_the_limit_nothing_goes(images, cache):
    for pooling in POOLINGS:
        embed(images, pooling, EmbeddingStore(cache, max_size=10**6))
    assert poolings(EmbeddingStore(cache)) == set(POOLINGS)


def test_views_count_and_the_recipe_just_extracted_stays_whatever_it_takes(images, cache):
    store = EmbeddingStore(cache, max_size=0)
    extraction = embed(images, "auto", store)
    view = extraction.memmap()
    again = embed(images, "auto", store)
    assert again.statistics.cached == 3
    assert poolings(store) == {"auto"}
    assert list((cache / "views").iterdir()) == []
    np.testing.assert_array_equal(view, again.to_numpy())


def test_without_a_limit_nothing_is_looked_at(images, cache, monkeypatch):
    collected = []
    monkeypatch.setattr(collect_module, "collect", lambda *args, **_: collected.append(args))
    embed(images, "auto", EmbeddingStore(cache))
    embed(images, "auto", None)
    assert not collected


def test_beside_another_extraction_the_limit_waits(images, cache):
    embed(images, "max", EmbeddingStore(cache))
    other = EmbeddingStore(cache)
    with other.locked_shared():
        embed(images, "auto", EmbeddingStore(cache, max_size=0))
        assert poolings(other) == {"auto", "max"}
    embed(images, "auto", EmbeddingStore(cache, max_size=0))
    assert poolings(other) == {"auto"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_another_ones_limit_at_the_opening_of_a_space_costs_time_only(
    images, cache, monkeypatch, when
):
    embed(images[:2], "auto", EmbeddingStore(cache))
    open_space, refused = EmbeddingStore.open_space, []

    def free():
        try:
            collect(EmbeddingStore(cache), max_size=0)
        except StoreError as error:
            refused.append(str(error))

    def beside_a_collection(store, *args):
        if when == "before":  # frees the space and its rows, unless it is locked
            free()
        space = open_space(store, *args)
        if when == "after":
            free()
        return space

    monkeypatch.setattr(EmbeddingStore, "open_space", beside_a_collection)
    extraction = embed(images, "auto", EmbeddingStore(cache))
    assert np.isfinite(extraction.to_numpy()).all()
    assert len(refused) == 1
    assert "in use by an extraction" in refused[0]
    assert extraction.statistics.embedded == 1


def test_a_store_that_cannot_be_collected_does_not_fail_an_extraction(images, cache, monkeypatch):
    embed(images, "max", EmbeddingStore(cache))

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(collect_module, "remove_space_folder", refused)
    assert embed(images, "auto", EmbeddingStore(cache, max_size=0)).statistics.embedded == 3


def test_bad_images_do_not_keep_the_limit_from_being_kept(images, cache):
    embed(images, "max", EmbeddingStore(cache))
    with pytest.raises(ImageError):
        embed([*images, b"no image"], "auto", EmbeddingStore(cache, max_size=0))
    assert poolings(EmbeddingStore(cache)) == {"auto"}


def test_the_environment_sets_the_limit(images, cache, monkeypatch):
    assert EmbeddingStore().max_size is None
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "1.5 kb")
    assert EmbeddingStore().max_size == 1500
    assert EmbeddingStore(max_size=7).max_size == 7
    for pooling in POOLINGS[:2]:
        embed(images, pooling, EmbeddingStore())
    assert poolings(EmbeddingStore()) == {POOLINGS[1]}
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "")
    assert EmbeddingStore().max_size is None
