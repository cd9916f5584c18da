"""Files are replaced atomically; the progress bar counts on stderr."""

from __future__ import annotations

import os

import pytest

from featuretl._core.files import open_local, replace_file
from featuretl._core.progress import progress_bar


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


def test_a_bar_shows_how_much_is_done_and_nothing_where_it_is_hidden(capsys):
    with progress_bar("Embedding", 3, "images") as update:
        update(1)
        update()
        update(4, 4)
    shown = capsys.readouterr().err
    assert "Embedding" in shown
    assert "4/4" in shown
    assert "images/s" in shown
    with progress_bar("Embedding", 3, shown=False) as update:
        update(1)
        update()
    assert capsys.readouterr() == ("", "")
