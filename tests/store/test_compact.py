"""Compaction merges segments; readers that opened the store before or after find the same rows."""

from __future__ import annotations

import os

import numpy as np
import pytest
from known_rows import RECIPE, append, found_in, key, open_space, present, put, row, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store import collect as collect_module
from featuretl.store.collect import collect
from featuretl.store.format import write_segment
from featuretl.store.lookup import keys_array
from featuretl.store.space import gather
from featuretl.store.verify import verify

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
    np.testing.assert_array_equal(gather(reader, locations), expected[:opened])
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
        two.claim(key(2), force=True)
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


def test_what_a_kill_left_of_merged_segments_goes_when_it_is_old(scattered, cache, monkeypatch, segment_files):
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
