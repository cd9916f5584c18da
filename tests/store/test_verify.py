"""Verification reports damage and removes nothing else; lost rows are embedded again."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.verify import rebuild, verify

GOLDEN = np.array([1, 2, 3], np.float32)


def recipe_of(name):
    return {"backbone": {"name": name, "tensors": "0"}, "output": {"n_features": 3}}


def key(i):
    return bytes([i]) * 32


def put(store, *numbers, name="a"):
    """Add one segment with a row for each new number; return the new numbers."""
    with store.open_space(recipe_of(name), GOLDEN, {}) as space:
        new = [i for i in numbers if space.claim([key(i)])[0]]
        if new:
            rows = np.array([[i, -i, i / 2] for i in new], np.float32)
            space.append([key(i) for i in new], rows)
    return new


def get(store, *numbers, name="a"):
    space = store.find_space(recipe_of(name))
    found = space.find(keys_array([key(i) for i in numbers]))
    return [None if at == MISSING else space.gather(np.array([at]))[0, 0] for at in found]


def segment(cache, number, suffix):
    """Return the path of the segment with this position in the order of commits."""
    with closing(sqlite3.connect(cache / "index.sqlite")) as db, db:
        uuid, space = db.execute("SELECT uuid, space FROM segment ORDER BY seq").fetchall()[number]
    return cache / "spaces" / space / f"{uuid}{suffix}"


def contents(cache):
    """Return the bytes of all files except the index, by path."""
    return {
        path: path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and path.name not in ("index.sqlite", "LOCK")
    }


def harm(path, damage):
    data = bytearray(path.read_bytes())
    at = {"flip header": 20, "flip end": len(data) - 10, "flip middle": len(data) // 2}
    if damage in at:
        data[at[damage]] ^= 1
    path.unlink()  # this test's own memory maps stay intact
    if damage != "delete":
        path.write_bytes({"truncate": data[:-1], "empty": b""}.get(damage, data))


@pytest.fixture
def filled(store, cache):
    """Create two spaces, the first with segments (1, 2) and (3,), and a view; open none of them."""
    put(store, 1, 2)
    put(store, 3)
    put(store, 1, name="b")
    store.view("f" * 64, (2, 3), iter([np.ones((2, 3), np.float32)]))
    return EmbeddingStore(cache)


def test_a_sound_store_has_no_findings_and_is_left_as_it_is(filled, cache):
    before = contents(cache), (cache / "index.sqlite").read_bytes()
    assert verify(filled) == []
    assert verify(filled, repair=True) == []
    assert (contents(cache), (cache / "index.sqlite").read_bytes()) == before


def test_a_store_that_is_not_there_is_not_created(store, cache):
    assert verify(store) == verify(store, repair=True) == []
    assert rebuild(store) == (0, 0)
    assert not cache.exists()


@pytest.mark.parametrize("suffix", [".npy", ".keys"])
@pytest.mark.parametrize(
    "damage", ["flip header", "flip middle", "flip end", "truncate", "empty", "delete"]
)
def test_a_damaged_segment_is_named_and_freed_and_made_again(filled, cache, suffix, damage):
    doomed = segment(cache, 0, suffix)
    good = contents(cache)
    harm(doomed, damage)
    harmed = contents(cache)
    (finding,) = verify(filled)
    assert (finding.path, finding.rows, finding.damaged) == (doomed, 2, True)
    assert contents(cache) == harmed  # verification changes nothing
    assert verify(EmbeddingStore(cache), repair=True) == [finding]
    left = contents(cache)
    assert left == {path: good[path] for path in good if path.stem != doomed.stem}
    fresh = EmbeddingStore(cache)
    assert verify(fresh) == []
    assert get(fresh, 1, 2, 3) == [None, None, 3]  # without a warning
    assert put(fresh, 1, 2, 3) == [1, 2]
    assert get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, 3]
    assert verify(fresh) == []


def test_rows_that_were_made_again_already_are_not_lost(filled, cache):
    harm(segment(cache, 0, ".npy"), "flip end")
    with pytest.warns(FeatureTLWarning, match="damaged segment"):
        assert put(filled, 1, 2) == [1, 2]
    (finding,) = verify(EmbeddingStore(cache), repair=True)
    assert finding.rows == 0
    assert get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, 3]


def test_a_segment_of_another_space_is_damage(filled, cache):
    from_b, home = segment(cache, 2, ".npy"), segment(cache, 0, ".npy").parent
    for suffix in (".npy", ".keys"):
        data = from_b.with_suffix(suffix).read_bytes()
        (home / from_b.with_suffix(suffix).name).write_bytes(data)
    (finding,) = verify(filled)
    assert "another space" in finding.problem
    verify(filled, repair=True)
    assert from_b.exists()
    assert get(EmbeddingStore(cache), 1, name="b") == [1]


@pytest.mark.parametrize(
    "damage", ["text", "truncate", "empty", "delete", "without a table", "a page of noise"]
)
def test_a_damaged_index_costs_nothing(filled, cache, damage):
    index = cache / "index.sqlite"
    data = index.read_bytes()
    index.unlink()
    if damage == "without a table":
        sqlite3.connect(index).execute("CREATE TABLE other (x)").connection.close()
    elif damage != "delete":
        noise = data[:4096] + os.urandom(4096) + data[8192:]
        index.write_bytes(
            {"text": b"no database" * 999, "truncate": data[:5000], "empty": b""}.get(damage, noise)
        )
    harmed = index.read_bytes() if index.exists() else None
    good = contents(cache)
    (finding,) = verify(EmbeddingStore(cache))
    assert (finding.path, finding.rows, finding.damaged) == (index, 0, True)
    assert (index.read_bytes() if index.exists() else None) == harmed
    verify(EmbeddingStore(cache), repair=True)
    assert contents(cache) == good
    fresh = EmbeddingStore(cache)
    assert verify(fresh) == []
    assert put(fresh, 1, 2, 3) == []


def test_an_index_that_says_something_else_than_the_files(filled, cache):
    first = segment(cache, 0, ".npy").stem
    with closing(sqlite3.connect(cache / "index.sqlite")) as db, db:
        db.execute("UPDATE segment SET n = 7 WHERE uuid = ?", (first,))
    (finding,) = verify(EmbeddingStore(cache), repair=True)
    assert finding.path.name == "index.sqlite"
    assert first in finding.problem
    assert (finding.rows, finding.damaged) == (0, True)
    assert get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    ("column", "value"),
    [("uuid", "../../../precious"), ("space", ".."), ("space", ""), ("uuid", ""), ("n", "many")],
)
def test_an_index_cannot_make_other_files_go(filled, cache, column, value):
    precious = [cache / "precious.npy", cache.parent / "precious.npy", cache / "spaces" / "x.txt"]
    for path in precious:
        path.write_bytes(b"precious")
    with closing(sqlite3.connect(cache / "index.sqlite")) as db, db:
        db.execute(f"UPDATE segment SET {column} = ? WHERE seq = 1", (value,))
    good = contents(cache)
    (finding,) = verify(EmbeddingStore(cache), repair=True)
    assert finding.path == cache / "index.sqlite"
    assert contents(cache) == good
    assert precious[1].exists()
    assert get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, 3]


def test_a_folder_that_is_no_store_stays_as_it_is(cache):
    cache.mkdir()
    (cache / "spaces").mkdir()
    (cache / "spaces" / "notes").mkdir()
    assert verify(EmbeddingStore(cache)) == []
    assert [path.name for path in cache.iterdir()] == ["spaces"]


def test_what_a_kill_before_the_commit_left_is_no_damage(filled, cache):
    whole, half = segment(cache, 0, ".npy"), segment(cache, 1, ".keys")
    with closing(sqlite3.connect(cache / "index.sqlite")) as db, db:
        db.execute("DELETE FROM segment WHERE uuid IN (?, ?)", (whole.stem, half.stem))
    half.unlink()
    old, young = half.with_name("x.npy.partial"), half.with_name("y.npy.partial")
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    findings = verify(EmbeddingStore(cache))
    assert not any(finding.damaged or finding.rows for finding in findings)
    assert {finding.path for finding in findings} == {cache / "index.sqlite", half, old}
    verify(EmbeddingStore(cache), repair=True)
    assert young.exists()
    assert not old.exists()
    assert verify(EmbeddingStore(cache)) == []
    assert get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, None]


@pytest.mark.parametrize(
    "damage",
    ["truncate", "empty", "delete", "recipe", "golden", "other golden", "generation", "list"],
)
def test_a_damaged_record_costs_its_space_only(filled, cache, damage):
    record = segment(cache, 0, ".npy").parent / "space.json"
    text = record.read_text()
    told = json.loads(text)
    changed = {
        "recipe": json.dumps({**told, "recipe": recipe_of("A")}),
        "golden": json.dumps({**told, "golden": told["golden"][4:]}),
        "other golden": json.dumps({**told, "golden": "AAAA" + told["golden"][4:]}),
        "generation": json.dumps({**told, "generation": "x"}),
        "list": "[]",
    }
    if damage in changed:
        record.write_text(changed[damage])
    else:
        harm(record, damage)
    (finding,) = verify(filled)
    assert (finding.path, finding.rows, finding.damaged) == (record, 3, True)
    assert verify(filled, repair=True) == [finding]
    assert not record.parent.exists()
    fresh = EmbeddingStore(cache)
    assert verify(fresh) == []
    assert [info.recipe["backbone"]["name"] for info in fresh.info()] == ["b"]
    assert put(fresh, 1, 2, 3) == [1, 2, 3]
    assert get(fresh, 1, name="b") == [1]


def test_a_folder_removed_by_hand(filled, cache):
    folder = segment(cache, 0, ".npy").parent
    folder.rename(cache / "elsewhere")
    (finding,) = verify(filled)
    assert (finding.path, finding.rows) == (folder / "space.json", 3)
    verify(filled, repair=True)
    assert verify(EmbeddingStore(cache)) == []


@pytest.mark.parametrize("damage", ["flip header", "flip middle", "truncate", "empty"])
def test_a_damaged_view_is_freed(filled, cache, damage):
    view = cache / "views" / f"{'f' * 64}.npy"
    harm(view, damage)
    (finding,) = verify(filled)
    assert (finding.path, finding.rows, finding.damaged) == (view, 0, True)
    verify(filled, repair=True)
    assert not view.exists()
    assert verify(filled) == []


def test_all_damage_is_named_at_once(filled, cache):
    doomed = {
        segment(cache, 0, ".npy"),
        segment(cache, 1, ".keys"),
        segment(cache, 2, ".npy").parent / "space.json",
        cache / "views" / f"{'f' * 64}.npy",
    }
    for path in doomed:
        harm(path, "empty")
    findings = verify(filled, repair=True)
    assert {finding.path for finding in findings} == doomed
    assert sum(finding.rows for finding in findings) == 4
    assert verify(EmbeddingStore(cache)) == []


def test_a_reader_keeps_the_rows_of_what_is_freed(filled, cache):
    space = filled.find_space(recipe_of("a"))
    at = space.find(keys_array([key(1)]))
    segment(cache, 0, ".keys").unlink()
    verify(EmbeddingStore(cache), repair=True)
    assert space.gather(at)[0, 0] == 1


def test_nothing_is_repaired_beside_an_extraction(filled, cache):
    doomed = segment(cache, 0, ".npy")
    harm(doomed, "empty")
    other = EmbeddingStore(cache)
    with filled.open_space(recipe_of("b"), GOLDEN, {}):
        for work in (lambda: verify(other, repair=True), lambda: rebuild(other)):
            with pytest.raises(StoreError, match="in use by an extraction"):
                work()
        assert len(verify(other)) == 1
    assert doomed.exists()


@pytest.mark.parametrize("number", [13, 24])  # EACCES, EMFILE
def test_what_may_not_be_read_is_not_taken_for_damaged(filled, cache, monkeypatch, number):
    harm(segment(cache, 0, ".npy"), "empty")
    good = contents(cache)

    def refused(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(StoreError, match=f"cannot be read .{os.strerror(number)}"):
        verify(filled, repair=True)
    monkeypatch.undo()
    assert contents(cache) == good


def test_a_newer_format_is_not_taken_for_damage(filled, cache):
    record = segment(cache, 0, ".npy").parent / "space.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    good = contents(cache)
    with pytest.raises(StoreError, match="upgrade featuretl"):
        verify(filled, repair=True)
    assert contents(cache) == good


def test_every_flipped_byte_of_a_segment_or_view_is_found(filled, cache):
    files = [segment(cache, 1, ".npy"), segment(cache, 1, ".keys"), *cache.glob("views/*.npy")]
    for path in files:
        data = path.read_bytes()
        for at in range(0, len(data), 3):
            flipped = bytearray(data)
            flipped[at] ^= 0x10
            path.write_bytes(flipped)
            assert [finding.path.stem for finding in verify(filled)] == [path.stem], at
        path.write_bytes(data)
    assert verify(filled) == []


def test_rebuild_makes_the_index_anew_and_forgets_the_hashes(filled, cache):
    filled.memo.put("fact", 1)
    with closing(sqlite3.connect(cache / "index.sqlite")) as db, db:
        db.execute("DELETE FROM segment")
    assert rebuild(filled) == (3, 4)
    assert filled.memo.get("fact") is None
    assert get(filled, 1, 2, 3) == get(EmbeddingStore(cache), 1, 2, 3) == [1, 2, 3]


def test_rebuild_takes_no_segment_from_a_folder_that_is_being_removed(filled, cache):
    folder = segment(cache, 0, ".npy").parent
    folder.rename(folder.with_name(f"{folder.name}.0a1b2c3d.partial"))
    assert rebuild(filled)[1] == 1


def test_a_store_that_cannot_be_written_says_so(filled, cache, monkeypatch):
    harm(segment(cache, 0, ".npy"), "empty")

    def refused(self, *args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    for work in (lambda: verify(filled, repair=True), lambda: rebuild(filled)):
        with pytest.raises(StoreError, match="Read-only file system"):
            work()
