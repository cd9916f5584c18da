"""Files are replaced atomically, and read in parallel within a limit."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from featuretl._core.files import (
    absolute,
    check_output,
    contents,
    each,
    file_system,
    is_local,
    is_url,
    lock_file,
    open_file,
    open_local,
    replace_file,
    without_scheme,
)
from featuretl.exceptions import InputError, ParameterError


def test_a_file_is_replaced_after_it_is_synced(tmp_path, monkeypatch):
    path, synced, fsync = tmp_path / "file", [], os.fsync
    path.write_bytes(b"old")

    def note(descriptor: int) -> None:
        synced.append(path.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    replace_file(path, lambda partial: partial.write_bytes(b"new"))
    assert synced == [b"old", b"new"]  # the file before the rename, the folder after it
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_file_that_cannot_be_replaced_stays_as_it_was(fails, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    def write(partial) -> None:
        partial.write_bytes(b"half")
        if fails == "write":
            full()

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        open_local(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        open_local(tmp_path)


def test_a_url_has_a_scheme_and_file_urls_are_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_url("s3://bucket/key")
    assert not is_url("folder/file")
    assert absolute("a/b") == str(tmp_path / "a" / "b")
    assert absolute("s3://bucket/key") == "s3://bucket/key"
    assert without_scheme(f"file://{tmp_path}/a") == f"{tmp_path}/a"
    assert without_scheme("a/b") == "a/b"
    assert is_local(file_system(f"file://{tmp_path}")[0])
    assert not is_local(file_system("memory://a")[0])


@pytest.mark.parametrize("url", ["no-such-scheme://a", "simplecache::memory://a"])
def test_unknown_and_chained_file_systems_are_refused(url):
    with pytest.raises(ParameterError, match=url):
        file_system(url)
    with pytest.raises(ParameterError, match=url):
        open_file(url)


def test_local_files_and_urls_are_opened_alike(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    for path in (str(tmp_path / "a"), f"file://{tmp_path}/a"):
        with open_file(path) as file:
            assert file.read() == b"12"
    for path in (str(tmp_path / "gone"), f"file://{tmp_path}/gone", str(tmp_path)):
        with pytest.raises(InputError, match=path):
            open_file(path)


@pytest.mark.parametrize("known_size", [True, False])
def test_files_up_to_the_limit_are_read_and_others_are_errors(tmp_path, known_size, monkeypatch):
    fs, folder = file_system(str(tmp_path))
    if not known_size:  # as from a server that gives no total size
        monkeypatch.setattr(fs, "open", lambda path, mode: Path(path).open(mode, buffering=0))
    for size in (0, 4, 5):
        (tmp_path / str(size)).write_bytes(b"x" * size)
    paths = [f"{folder}/{name}" for name in ("5", "4", "gone", "0")]
    over, full, gone, empty = contents(fs, paths, limit=4)
    assert isinstance(over, OverflowError)
    assert isinstance(gone, FileNotFoundError)
    assert (full, empty) == (b"xxxx", b"")
    assert contents(fs, paths[:1]) == [b"xxxxx"]


def test_results_and_errors_keep_the_order_of_the_paths():
    barrier = threading.Barrier(3, timeout=10)  # all three calls run at the same time

    def call(path: str) -> str:
        barrier.wait()
        if path == "b":
            raise KeyError(path)
        return path.upper()

    first, error, last = each(call, ["a", "b", "c"])
    assert (first, last) == ("A", "C")
    assert isinstance(error, KeyError)
    assert each(call, []) == []


def test_an_exclusive_lock_excludes_and_shared_locks_do_not(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as one, path.open("w") as other:
        lock_file(one.fileno(), shared=True)
        lock_file(other.fileno(), shared=True, wait=False)
        with pytest.raises(BlockingIOError):
            lock_file(one.fileno(), wait=False)
    with path.open("w") as again:
        lock_file(again.fileno(), wait=False)  # closing the files released the locks


@pytest.mark.parametrize("name", ["missing/out.npy", "file/out.npy"])
def test_a_missing_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match=r"folder of the output .* does not exist"):
        check_output(tmp_path / name, (".npy",))
