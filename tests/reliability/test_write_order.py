"""A crash or an error after any operation of a commit leaves the store intact."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3

import pytest
from known_rows import append, open_space, present, put, take
from recorded import Operation, Recorder, after_a_crash

from featuretl import EmbeddingStore
from featuretl.exceptions import StoreError
from featuretl.store import index as index_module
from featuretl.store.collect import collect
from featuretl.store.verify import verify

OLD, NEW = [1, 2, 3], [3, 4, 5]
BOTH = {*OLD, *NEW}
EXPECTED = [
    *["create", "write", "write", "sync"],  # embeddings file: header, rows
    *["create", "write", "write", "sync"],  # keys file: keys with footer, checksum
    *["rename", "rename", "sync folder", "index"],
]


@pytest.fixture
def before(tmp_path):
    """The folder of a store with some rows, to be copied."""
    put(EmbeddingStore(tmp_path / "before"), OLD)
    return tmp_path / "before"


def record(folder, monkeypatch) -> list[Operation]:
    """Return the recorded operations of a commit of NEW."""
    recorder = Recorder(folder)
    with open_space(EmbeddingStore(folder)) as space:
        append(space, take(space, NEW))
        with monkeypatch.context() as patch:
            recorder.install(patch)
            space.commit()
    return recorder.operations


def crash(before, folder, files: dict[str, bytes]) -> EmbeddingStore:
    """Return the store as found after the restart."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return EmbeddingStore(folder)


def test_a_commit_syncs_the_files_then_their_names_then_the_index(before, monkeypatch):
    operations = record(before, monkeypatch)
    assert [operation.name for operation in operations] == EXPECTED
    assert all(
        operation.path.endswith(".partial") for operation in operations if operation.name == "write"
    )


@pytest.mark.parametrize("length", range(len(EXPECTED) + 1))
def test_a_crash_after_any_operation_loses_nothing_acknowledged(
    before, tmp_path, monkeypatch, length
):
    shutil.copytree(before, tmp_path / "recorded")
    operations = record(tmp_path / "recorded", monkeypatch)[:length]
    for files in after_a_crash(operations):
        store = crash(before, tmp_path / "after", files)
        there = present(store, BOTH)  # pytest turns a damage warning into an error here
        assert there == (BOTH if length == len(EXPECTED) else set(OLD))
        assert set(put(store, BOTH)) == BOTH - there
        assert present(EmbeddingStore(store.path), BOTH) == BOTH


@pytest.mark.filterwarnings("ignore::featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("length", range(len(EXPECTED) + 1))
def test_after_a_crash_an_index_made_anew_has_whole_rows_only(
    before, tmp_path, monkeypatch, length
):
    shutil.copytree(before, tmp_path / "recorded")
    operations = record(tmp_path / "recorded", monkeypatch)[:length]
    for files in after_a_crash(operations):
        store = crash(before, tmp_path / "after", files)
        (store.path / "index.sqlite").unlink()
        there = present(store, BOTH)
        assert set(OLD) <= there
        assert length < len(EXPECTED) or there == BOTH
        assert set(put(store, BOTH)) == BOTH - there


@pytest.mark.filterwarnings("ignore::featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("left_out", ["sync", "sync folder"])
def test_the_replay_would_notice_an_operation_left_out(before, tmp_path, monkeypatch, left_out):
    shutil.copytree(before, tmp_path / "recorded")
    operations = record(tmp_path / "recorded", monkeypatch)
    operations = [operation for operation in operations if operation.name != left_out]
    lost = [
        present(crash(before, tmp_path / "after", files), BOTH) != BOTH
        for files in after_a_crash(operations)
    ]
    assert any(lost)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("fails", range(len(EXPECTED) - 1))
def test_an_operation_that_fails_is_one_error_and_the_commit_can_be_tried_again(
    before, monkeypatch, number, fails
):
    with open_space(EmbeddingStore(before)) as space:
        append(space, take(space, NEW))
        recorder = Recorder(before, fails, OSError(number, os.strerror(number)))
        with monkeypatch.context() as patch:
            recorder.install(patch)
            with pytest.raises(StoreError, match=os.strerror(number)) as caught:
                space.commit()
        assert "\n" not in str(caught.value)
        assert len(recorder.operations) == fails + 1  # the commit stops at the failed operation
        assert present(EmbeddingStore(before), BOTH) == set(OLD)
        assert not list(before.glob("spaces/*/*.partial"))
        space.commit()
        assert present(EmbeddingStore(before), BOTH) == BOTH


@pytest.mark.parametrize("said", ["disk I/O error", "database or disk is full"])
def test_an_index_that_fails_is_one_error_and_the_commit_can_be_tried_again(
    before, monkeypatch, said
):
    def failing(db):
        raise sqlite3.OperationalError(said)

    with open_space(EmbeddingStore(before)) as space:
        append(space, take(space, NEW))
        with monkeypatch.context() as patch:
            patch.setattr(index_module, "_transaction", failing)
            with pytest.raises(StoreError, match=said):
                space.commit()
        assert present(EmbeddingStore(before), BOTH) == set(OLD)
        space.commit()
        assert present(EmbeddingStore(before), BOTH) == BOTH


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_a_crash_during_compaction_loses_no_row(before, tmp_path, monkeypatch, index):
    put(EmbeddingStore(before), NEW)
    shutil.copytree(before, tmp_path / "recorded")
    recorder = Recorder(tmp_path / "recorded")
    with monkeypatch.context() as patch:
        recorder.install(patch)
        assert collect(EmbeddingStore(tmp_path / "recorded")).compacted == 2
    operations = recorder.operations
    assert [operation.name for operation in operations] == EXPECTED
    for length in range(len(EXPECTED) + 1):
        for files in after_a_crash(operations[:length]):
            store = crash(before, tmp_path / "after", files)
            if length == len(EXPECTED):  # the old files are unlinked last
                for path in store.path.glob("spaces/*/*"):
                    if path.suffix != ".json" and str(path.relative_to(store.path)) not in files:
                        path.unlink()
            if index == "lost":
                (store.path / "index.sqlite").unlink()
                store.index.rebuild()
            assert present(store, BOTH) == BOTH
            verify(store, repair=True)
            collect(store)
            assert present(EmbeddingStore(store.path), BOTH) == BOTH


@pytest.mark.filterwarnings("ignore::featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("fails", range(len(EXPECTED) - 1))
def test_a_compaction_that_fails_leaves_the_store_as_it_was(before, monkeypatch, fails):
    put(EmbeddingStore(before), NEW)
    names = sorted(path.name for path in before.glob("spaces/*/*"))
    recorder = Recorder(before, fails, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with monkeypatch.context() as patch:
        recorder.install(patch)
        assert collect(EmbeddingStore(before)).compacted == 0
    assert sorted(path.name for path in before.glob("spaces/*/*")) == names
    assert present(EmbeddingStore(before), BOTH) == BOTH
