"""The memo returns a correct digest or None."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featuretl.store.memo import Memo, file_state

DIGEST = bytes(range(32))


@pytest.fixture
def memo(tmp_path):
    return Memo(tmp_path / "memo.sqlite")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"0123")
    return path


def test_an_unchanged_file_is_remembered_in_other_processes_too(memo, file, tmp_path, monkeypatch):
    memo.remember_digests([(str(file), file.stat(), DIGEST)])
    assert memo.digests([str(file), str(tmp_path / "other")]) == [DIGEST, None]
    monkeypatch.chdir(tmp_path)
    assert Memo(tmp_path / "memo.sqlite").digests(["photo.jpg"]) == [DIGEST]


def test_same_size_edits_with_the_old_times_restored_are_noticed(memo, file):
    state = file.stat()
    memo.remember_digests([(str(file), state, DIGEST)])
    file.write_bytes(b"4567")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert memo.digests([str(file)]) == [None]


def test_a_file_replaced_by_another_is_noticed(memo, file):
    memo.remember_digests([(str(file), file.stat(), DIGEST)])
    new = file.with_name("new")
    new.write_bytes(b"0123")
    new.replace(file)
    assert memo.digests([str(file)]) == [None]


def test_names_that_are_not_utf8(memo, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.jpg")
    Path(path).write_bytes(b"x")
    memo.remember_digests([(path, Path(path).stat(), DIGEST)])
    assert memo.digests([path, "\0"]) == [DIGEST, None]


def test_facts(memo):
    assert memo.get("a") is None
    memo.put("a", {"b": [1, 2.5, None]})
    memo.put("a", {"b": [3]})
    assert memo.get("a") == {"b": [3]}


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_a_damaged_memo_starts_again(tmp_path, file, content):
    path = tmp_path / "memo.sqlite"
    path.write_bytes(content)
    memo = Memo(path)
    assert memo.digests([str(file)]) == [None]
    memo.remember_digests([(str(file), file.stat(), DIGEST)])
    assert memo.digests([str(file)]) == [DIGEST]


@pytest.mark.parametrize("wrong", [None, "\xfftext", 7, DIGEST[:31]])
def test_what_is_no_digest_is_not_taken_for_one(memo, file, wrong):
    memo.remember_digests([(str(file), file.stat(), wrong)])
    assert memo.digests([str(file)]) == [None]


def test_a_memo_that_cannot_be_made_only_forgets(tmp_path, file):
    memo = Memo(tmp_path / "nowhere" / "memo.sqlite")
    memo.remember_digests([(str(file), file.stat(), DIGEST)])
    memo.put("a", 1)
    assert memo.digests([str(file)]) == [None]
    assert memo.get("a") is None


def test_the_state_of_a_file_changes_with_it(file):
    before = file_state(file)
    file.write_bytes(b"01234")
    assert file_state(file) != before
    file.unlink()
    assert file_state(file) is None
