"""The store keeps committed rows, refuses damaged files, and never mixes recipes."""

from __future__ import annotations

import pickle
import sqlite3
import stat
import threading
import warnings

import numpy as np
import pytest

from known_rows import GOLDEN, RECIPE, append, key, open_space, present, put, row, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning, ParameterError, StoreError
from featuretl.store import space as space_module
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.space import gather, gather_chunks
from featuretl.store.store import resolve_store

def put_singly(store, numbers):
    """Embed images in one run, one at a time."""
    with open_space(store) as space:
        for number in numbers:
            append(space, take(space, [number]))


def test_rows_are_found_by_other_stores_once_committed(store, cache):
    with open_space(store) as space:
        assert space.claim(key(1)) is True
        assert space.claim(key(1)) is False  # claimed here already
        space.append([key(1)], row(1)[None])
        assert present(EmbeddingStore(cache), [1]) == set()
        space.commit()
        assert present(EmbeddingStore(cache), [1, 2]) == {1}
        assert space.claim(key(1)) is False
    assert present(pickle.loads(pickle.dumps(store)), [1]) == {1}


def test_what_is_appended_is_committed_however_the_context_ends(store):
    with pytest.raises(KeyboardInterrupt), open_space(store) as space:
        space.claim(key(7))
        space.append([key(7)], row(7)[None])
        raise KeyboardInterrupt
    assert present(store, [7]) == {7}


def test_a_full_segment_is_committed_by_itself(store, monkeypatch, segment_files):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 4)
    put_singly(store, range(10))
    assert [len(np.load(path)) for path in segment_files()] == [4, 4, 2]
    assert present(store, range(10)) == {*range(10)}


def test_wide_rows_make_short_segments_and_a_minute_ends_one(store, monkeypatch, segment_files):
    monkeypatch.setattr(space_module, "SEGMENT_BYTES", 3 * row(0).nbytes)
    put_singly(store, range(7))
    assert [len(np.load(path)) for path in segment_files()] == [3, 3, 1]
    monkeypatch.setattr(space_module, "SEGMENT_SECONDS", 0)
    put_singly(store, [20, 21])
    assert len(segment_files()) == 5


def test_two_extractions_share_the_work(store, cache):
    other = EmbeddingStore(cache)
    with open_space(store) as mine, open_space(other) as theirs:
        assert mine.claim(key(1)) is True
        assert theirs.claim(key(1)) is None
        assert theirs.claim(key(1), force=True) is True
        assert theirs.claim(key(2)) is True
        mine.append([key(1)], row(1)[None])
        mine.commit()
        theirs.commit()
        assert theirs.claim(key(1)) is False  # the other has committed it meanwhile


def test_gather_keeps_the_order_and_marks_what_is_missing(store, monkeypatch):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 2)
    put_singly(store, range(6))
    space = store.find_space(RECIPE)
    order = [5, 0, 3, 99, 3]
    locations = space.find(keys_array([key(i) for i in order]))
    rows = gather(space, locations)
    np.testing.assert_array_equal(
        rows[[0, 1, 2, 4]], np.stack([row(i) for i in (5, 0, 3, 3)])
    )
    assert np.isnan(rows[3]).all()
    np.testing.assert_array_equal(np.concatenate(list(gather_chunks(space, locations, 2))), rows)


@pytest.mark.parametrize("suffix", [".npy", ".keys"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
def test_a_damaged_segment_is_named_and_its_rows_are_made_again(store, cache, suffix, damage, segment_files):
    put(store, [1, 2])
    put(store, [3])
    path = segment_files(suffix)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes({"flip": data, "truncate": data[:-1], "empty": b""}[damage])
    with pytest.warns(FeatureTLWarning, match=path.stem):
        assert present(EmbeddingStore(cache), [1, 2, 3]) == {3}
    with pytest.warns(FeatureTLWarning, match=path.stem):
        put(EmbeddingStore(cache), [1, 2, 3])
    with pytest.warns(FeatureTLWarning, match=path.stem):
        assert present(EmbeddingStore(cache), [1, 2, 3]) == {1, 2, 3}
    assert len(segment_files()) == (2 if damage == "delete" and suffix == ".npy" else 3)


@pytest.mark.parametrize("damage", ["delete", "empty", "text", "truncate"])
def test_a_lost_index_is_made_anew_from_the_segments(store, cache, damage):
    put(store, [1, 2])
    put(store, [3])
    index = cache / "index.sqlite"
    data = index.read_bytes()
    if damage == "delete":
        index.unlink()
    else:
        index.write_bytes(
            {"empty": b"", "text": b"garbage" * 1000, "truncate": data[:5000]}[damage]
        )
    fresh = EmbeddingStore(cache)
    if damage in ("text", "truncate"):
        with pytest.warns(FeatureTLWarning, match="index of the embedding store"):
            assert present(fresh, [1, 2, 3]) == {1, 2, 3}
    else:
        assert present(fresh, [1, 2, 3]) == {1, 2, 3}
    put(fresh, [4])
    assert present(EmbeddingStore(cache), [1, 2, 3, 4]) == {1, 2, 3, 4}


def test_an_index_replaced_while_it_is_open_is_noticed(store, cache):
    put(store, [1])
    with open_space(store) as space:
        EmbeddingStore(cache).index.rebuild()
        space.claim(key(2))
        space.append([key(2)], row(2)[None])
    assert present(EmbeddingStore(cache), [1, 2]) == {1, 2}


@pytest.mark.parametrize("found", [b"segment (\n", b"space TEXT", b"seq INTEGER", "the uuid"])
@pytest.mark.parametrize("put_there", [b"\xff", b"\0", b"x"])
def test_an_index_with_a_wrong_byte_is_made_anew(store, cache, found, put_there, segment_files):
    put(store, [1, 2])
    path = cache / "index.sqlite"
    data = path.read_bytes()
    if found == "the uuid":
        found = segment_files()[0].stem.encode()
    assert found in data
    path.write_bytes(data.replace(found, put_there + found[1:], 1))
    with pytest.warns(FeatureTLWarning, match="index of the embedding store"):
        assert present(EmbeddingStore(cache), [1, 2]) == {1, 2}
    put(EmbeddingStore(cache), [3])
    assert present(EmbeddingStore(cache), [1, 2, 3]) == {1, 2, 3}


@pytest.mark.parametrize("at", [18, 19])
@pytest.mark.parametrize("byte", [0, 2, 3, 255])
def test_an_index_that_calls_itself_read_only_or_wal_is_made_anew(store, cache, at, byte):
    put(store, [1, 2])
    path = cache / "index.sqlite"
    data = bytearray(path.read_bytes())
    data[at] = byte
    path.write_bytes(data)
    assert EmbeddingStore(cache).index.problem()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert present(EmbeddingStore(cache), [1, 2]) == {1, 2}
    assert all("is damaged; it is rebuilt" in str(warning.message) for warning in caught)
    assert caught or (at, byte) == (19, 2)  # SQLite itself switches from WAL back
    put(EmbeddingStore(cache), [3])
    assert present(EmbeddingStore(cache), [1, 2, 3]) == {1, 2, 3}
    assert EmbeddingStore(cache).index.problem() is None


@pytest.mark.parametrize(
    ("found", "put_there"), [('"id": "', '"id": "0'), ('"n_features": 24', '"n_features": 25'),
                             ('"golden": "', '"golden": "='), ('"golden": "', '"golden": "AAAA')]
)  # fmt: skip
def test_a_damaged_record_of_a_space_is_named(store, found, put_there):
    put(store, [1])
    record = store.find_space(RECIPE).folder / "space.json"
    record.write_text(record.read_text().replace(found, put_there))
    for use in (open_space, lambda store: store.find_space(RECIPE)):
        with pytest.raises(StoreError, match=r"space\.json.* is damaged"):
            use(store)


def test_a_store_that_could_not_be_locked_is_locked_when_it_can(store, cache):
    put(store, [1])
    space = store.find_space(RECIPE)
    (cache / "LOCK").unlink()
    (cache / "LOCK").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        space.__enter__()
    (cache / "LOCK").rmdir()
    with open_space(store), pytest.raises(StoreError, match="in use by an extraction"):
        with EmbeddingStore(cache).locked_exclusively():
            pass


def test_an_index_with_other_numbers_is_read_anew(store, cache, segment_files):
    put(store, [1])
    put(store, [2])
    with open_space(store) as space:
        segment_files(".keys")[0].unlink()
        EmbeddingStore(cache).index.rebuild()  # one segment fewer, so the next is number 2 again
        space.claim(key(3))
        space.append([key(3)], row(3)[None])
        space.commit()
        assert space.find(keys_array([key(i) for i in (2, 3)])).min() > MISSING
    assert present(EmbeddingStore(cache), [1, 2, 3]) == {2, 3}


def test_partial_files_of_a_killed_process_are_passed_over(store, cache):
    put(store, [1])
    space = store.find_space(RECIPE)
    (space.folder / f"{'e' * 32}.npy.partial").write_bytes(b"half")
    (space.folder / f"{'e' * 32}.npy").write_bytes(b"published, not committed")
    (cache / "index.sqlite").unlink()
    assert present(EmbeddingStore(cache), [1]) == {1}


def test_another_golden_embedding_starts_a_new_generation(store):
    put(store, [1])
    drifted = GOLDEN[::-1].copy()
    with pytest.warns(FeatureTLWarning, match="golden image"):
        new = store.open_space(RECIPE, drifted, {})
    assert new.find(keys_array([key(1)])) == MISSING
    assert store.open_space(RECIPE, drifted, {}).id == new.id
    assert store.open_space(RECIPE, GOLDEN * 1.000001, {}).id != new.id
    assert store.find_space(RECIPE).id == new.id  # the newest


def test_info_counts_what_is_committed(store, segment_files):
    assert store.info() == []
    put(store, [1, 2])
    put(store, [3])
    (info,) = store.info()
    assert (info.rows, info.segments, info.recipe) == (3, 2, RECIPE)
    files = [*segment_files(), *segment_files(".keys")]
    assert info.bytes == sum(path.stat().st_size for path in files)


def test_looking_at_a_store_that_is_not_there_creates_nothing(store, cache):
    assert store.info() == []
    assert store.find_space(RECIPE) is None
    assert not cache.exists()


def test_a_view_is_written_once_and_mapped(store):
    put(store, [1])
    chunks = [np.full((1, 3), number, np.float32) for number in (1, 2)]
    view = store.view("f" * 64, (2, 3), iter(chunks))
    np.testing.assert_array_equal(view, np.concatenate(chunks))
    assert isinstance(view, np.memmap)
    assert not view.flags.writeable
    again = store.view("f" * 64, (2, 3), iter(()))
    np.testing.assert_array_equal(again, view)


@pytest.mark.parametrize("damage", ["truncate", "longer", "header", "empty", "shape"])
def test_a_damaged_view_is_written_anew(store, cache, damage):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    view = store.view("f" * 64, (2, 3), iter([rows]))
    path = cache / "views" / f"{'f' * 64}.npy"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(
        {
            "truncate": data[:-1],
            "longer": data + b"\0",
            "header": data.replace(b"(2, 3)", b"(2, 3 "),
            "empty": b"",
            "shape": data.replace(b"(2, 3)", b"(3, 2)"),
        }[damage]
    )
    again = EmbeddingStore(cache).view("f" * 64, (2, 3), iter([rows]))
    np.testing.assert_array_equal(again, view)
    assert path.read_bytes() == data


def test_one_space_serves_many_threads(store, monkeypatch):
    monkeypatch.setattr(space_module, "SEGMENT_ROWS", 16)
    counts = []

    def work(space):
        mine = [i for i in range(200) if space.claim(key(i))]
        for i in mine:
            space.append([key(i)], row(i)[None])
        counts.append(len(mine))

    with open_space(store) as space:
        threads = [threading.Thread(target=work, args=(space,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(counts) == 200
    assert present(store, range(200)) == {*range(200)}


def test_a_store_of_a_newer_format_is_refused(store):
    put(store, [1])
    space = store.find_space(RECIPE)
    record = space.folder / "space.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="upgrade featuretl"):
        store.info()
    record.write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        store.find_space(RECIPE)


def test_a_store_that_cannot_be_written_says_so_and_loses_nothing(store, monkeypatch):
    put(store, [1])

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(space_module, "write_segment", full)
    with pytest.raises(StoreError, match=r"No space left on device.*1 embeddings of this run"):
        put(store, [2])
    monkeypatch.undo()
    assert present(store, [1, 2]) == {1}


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        put(EmbeddingStore(tmp_path / "cache"), [1])


def test_the_index_locks_out_nobody_for_long(store, cache):
    put(store, [1])
    reader = sqlite3.connect(cache / "index.sqlite")
    assert reader.execute("SELECT n FROM segment").fetchall() == [(1,)]
    put(store, [2])
    reader.close()
    assert present(store, [1, 2]) == {1, 2}


def test_folders_are_private(store, cache):
    put(store, [1])
    assert stat.S_IMODE(cache.stat().st_mode) & 0o077 == 0


def test_where_a_cache_parameter_points(cache, tmp_path, monkeypatch):
    assert resolve_store("auto", "t").path == cache
    assert resolve_store(tmp_path / "other", "t").path == tmp_path / "other"
    assert resolve_store(None, "t") is None
    store = EmbeddingStore()
    assert resolve_store(store, "t") is store
    with pytest.raises(ParameterError, match="'cache' parameter of t"):
        resolve_store(7, "t")
    monkeypatch.delenv("FEATURETL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert resolve_store("auto", "t").path.is_relative_to(tmp_path)


def test_the_default_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATURETL_CACHE", str(tmp_path / "file"))
    with pytest.warns(FeatureTLWarning, match="without caching"):
        assert resolve_store("auto", "t") is None
