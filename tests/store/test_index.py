"""The index lists the committed segments, and is rebuilt from their files if it is damaged or lost."""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
import warnings
from dataclasses import replace

import pytest
from known_rows import RECIPE, append, found_in, key, open_space, present, put, row, take

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning
from featuretl.store.index import is_damage
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.verify import verify


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
        space.claim([key(2)])[0]
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


def test_an_index_with_other_numbers_is_read_anew(store, cache, segment_files):
    put(store, [1])
    put(store, [2])
    with open_space(store) as space:
        segment_files(".keys")[0].unlink()
        EmbeddingStore(cache).index.rebuild()  # one segment fewer, so the next is number 2 again
        space.claim([key(3)])[0]
        space.append([key(3)], row(3)[None])
        space.commit()
        assert space.find(keys_array([key(i) for i in (2, 3)])).min() > MISSING
    assert present(EmbeddingStore(cache), [1, 2, 3]) == {2, 3}


@pytest.mark.filterwarnings("ignore:The index:featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("length", [0, 1, 100, 4096, 5000, 8192, "unlinked", "replaced"])
def test_an_index_truncated_or_unlinked_while_it_is_used_costs_nothing(store, cache, length):
    put(store, [1, 2, 3])
    index = cache / "index.sqlite"
    with open_space(store) as space:
        append(space, take(space, [4]))
        if isinstance(length, int):
            os.truncate(index, length)
        else:
            index.unlink()
            if length == "replaced":
                EmbeddingStore(cache).index.rebuild()
        space.commit()
        append(space, take(space, [5, 1]))
        space.commit()
        assert found_in(space, range(7)) == {1, 2, 3, 4, 5}
    assert present(EmbeddingStore(cache), range(7)) == {1, 2, 3, 4, 5}
    assert verify(EmbeddingStore(cache)) == []


def test_an_index_is_made_anew_while_spaces_are_published_and_removed(tmp_path):
    cache, over = tmp_path / "cache", threading.Event()
    put(EmbeddingStore(cache), range(20))

    def publish_and_remove():
        names = ["a" * 64, f"{'a' * 64}.1.partial", f"{'a' * 64}.2.partial"]
        a, begun, doomed = (cache / "spaces" / name for name in names)
        while not over.is_set():
            begun.mkdir()
            begun.rename(a)
            a.rename(doomed)
            doomed.rmdir()

    other = threading.Thread(target=publish_and_remove)
    other.start()
    try:
        for _ in range(100):
            EmbeddingStore(cache).index.rebuild()
    finally:
        over.set()
        other.join()
    assert present(EmbeddingStore(cache), range(20)) == set(range(20))


def test_partial_files_of_a_killed_process_are_passed_over(store, cache):
    put(store, [1])
    space = store.find_space(RECIPE)
    (space.folder / f"{'e' * 32}.npy.partial").write_bytes(b"half")
    (space.folder / f"{'e' * 32}.npy").write_bytes(b"published, not committed")
    (cache / "index.sqlite").unlink()
    assert present(EmbeddingStore(cache), [1]) == {1}


def test_a_store_that_is_dropped_leaves_no_open_connection(cache):
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            store = EmbeddingStore(cache)
            put(store, [1])
            store.memo.put("fact", 1)
            store.index.rebuild()
            assert store.memo.get("fact") == 1
            del store
            gc.collect()
    assert not caught


def test_the_index_locks_out_nobody_for_long(store, cache):
    put(store, [1])
    reader = sqlite3.connect(cache / "index.sqlite")
    assert reader.execute("SELECT n FROM segment").fetchall() == [(1,)]
    put(store, [2])
    reader.close()
    assert present(store, [1, 2]) == {1, 2}


def test_a_segment_replaces_others_at_once_and_spaces_are_counted(store, cache):
    for number in range(3):
        put(store, [number])
    index, space = store.index, store.find_space(RECIPE).id
    (one, first), (two, second), (three, third) = index.segments(space)
    assert one < two < three
    assert index.segments(space, after=two) == [(three, third)]
    assert index.sizes()[space][:2] == (3, 3)
    before = index.version()
    merged = replace(first, uuid="f" * 32, n=2)
    index.insert(merged, [first, second])
    assert index.version() != before
    assert [segment for _, segment in EmbeddingStore(cache).index.segments(space)] == [
        third,
        merged,
    ]
    assert [index.lists(segment) for segment in (first, second, third, merged)] == [
        False, False, True, True
    ]  # fmt: skip
    assert index.sizes()[space][:2] == (3, 2)
    index.forget(space)
    assert index.segments(space) == []
    assert index.sizes() == {}


def test_an_index_that_is_not_there_is_a_problem_which_looking_does_not_repair(store, cache):
    put(store, [1])
    (cache / "index.sqlite").unlink()
    assert "missing" in EmbeddingStore(cache).index.problem()
    assert not (cache / "index.sqlite").exists()


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_READONLY_DBMOVED, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_READONLY, False),
    ],
)
def test_only_the_content_of_the_file_is_damage(code, damage):
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    assert is_damage(error) is damage
    assert not is_damage(OSError(5, "Input/output error"))
