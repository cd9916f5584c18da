"""Segments are read as they were written, and damaged files are refused."""

from __future__ import annotations

import ast
import errno
import os

import numpy as np
import pytest

from featuretl.exceptions import UnusableStoreError
from featuretl.store.format import (
    KEY_DTYPE,
    DamagedFileError,
    entries,
    open_checked_rows,
    open_rows,
    publish_folder,
    read_keys,
    reading,
    write_segment,
    write_view,
)

SPACE = "ab" * 32


def make(folder, n=5, d=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    keys = np.frombuffer(rng.bytes(32 * n), KEY_DTYPE)
    rows = rng.normal(size=(n, d)).astype(dtype)
    return write_segment(folder, f"{seed:032x}", SPACE, keys, rows), keys, rows


def read(folder, segment):
    described, keys = read_keys(folder, segment.uuid)
    assert described == segment
    return keys, open_checked_rows(folder, segment)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_segment_is_read_as_it_was_written(tmp_path, dtype):
    segment, keys, rows = make(tmp_path, dtype=dtype)
    read_back, map_ = read(tmp_path, segment)
    assert read_back.tobytes() == keys.tobytes()
    np.testing.assert_array_equal(map_, rows)
    assert not map_.flags.writeable
    np.testing.assert_array_equal(np.load(segment.path(tmp_path)), rows)  # a plain .npy file
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".keys"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_keys_may_hold_zero_bytes_anywhere(tmp_path):
    keys = np.frombuffer(b"\0" * 31 + b"\1" + b"\1" + b"\0" * 31, KEY_DTYPE)
    segment = write_segment(tmp_path, "0" * 32, SPACE, keys, np.ones((2, 1), np.float32))
    assert read(tmp_path, segment)[0].tobytes() == keys.tobytes()


@pytest.mark.parametrize("suffix", [".npy", ".keys"])
def test_every_flipped_byte_and_every_truncation_is_refused(tmp_path, suffix):
    segment, _, _ = make(tmp_path, n=2, d=2)
    path = tmp_path / f"{segment.uuid}{suffix}"
    whole = path.read_bytes()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 0x40
        for damaged in (bytes(flipped), whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(DamagedFileError, match=segment.uuid):
                read(tmp_path, segment)
    path.write_bytes(whole)
    read(tmp_path, segment)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (5, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 3), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (5, 3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }",
        "__import__('os').abort()",
        "{'descr': '<f4', 'shape': (5, 3",
        "(" * 100,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3 , }",
        "{b'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), }",
    ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(tmp_path, header):
    segment, _, _ = make(tmp_path)
    path = segment.path(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:10] + header.ljust(117).encode() + b"\n" + data[128:])
    assert path.stat().st_size == segment.size
    with pytest.raises(DamagedFileError):
        open_rows(tmp_path, segment)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"PK\x05\x06", b"\x80\x04]"])
def test_other_files_in_the_place_of_a_segment_are_refused(tmp_path, start):
    segment, _, _ = make(tmp_path)
    path = segment.path(tmp_path)
    path.write_bytes(start + path.read_bytes()[len(start) :])
    with pytest.raises(DamagedFileError, match=segment.uuid):
        open_rows(tmp_path, segment)


def test_segments_are_opened_without_pythons_parser(tmp_path, monkeypatch):
    segment, _, rows = make(tmp_path)

    def fail(*args, **kwargs):  # CPython 3.11 can raise this when several threads parse
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "parse", fail)
    with pytest.raises(SystemError):
        np.load(segment.path(tmp_path))
    np.testing.assert_array_equal(open_rows(tmp_path, segment), rows)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_published_folders_are_never_replaced(tmp_path):
    publish_folder(tmp_path / "a", "space.json", b"first")
    publish_folder(tmp_path / "a", "space.json", b"second")
    assert (tmp_path / "a" / "space.json").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_matrix_appears_whole_or_not_at_all(tmp_path):
    chunks = [np.full((2, 3), i, np.float64) for i in range(3)]
    write_view(tmp_path / "m.npy", (6, 3), chunks)
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), np.concatenate(chunks))

    def broken():
        yield chunks[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_view(tmp_path / "n.npy", (6, 3), broken())
    assert [path.name for path in tmp_path.iterdir()] == ["m.npy"]


def test_what_is_gone_is_not_listed(tmp_path):
    assert entries(tmp_path / "no", ".keys") == []
    (tmp_path / "a.keys").write_bytes(b"12")
    (tmp_path / "b.keys").symlink_to(tmp_path / "removed")  # as if removed after the listing
    (tmp_path / "c.npy").touch()
    ((state, path),) = entries(tmp_path, ".keys")
    assert (state.st_size, path.name) == (2, "a.keys")
    assert len(entries(tmp_path, ".keys", ".npy")) == 2


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE]
)
def test_an_error_of_the_system_is_not_damage(tmp_path, number):
    with pytest.raises(UnusableStoreError, match=os.strerror(number)), reading(tmp_path):
        raise OSError(number, "as a library says it")
    with pytest.raises(UnusableStoreError, match=os.strerror(errno.ENOMEM)), reading(tmp_path):
        raise MemoryError


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.EISDIR])
def test_a_file_that_is_gone_or_on_a_broken_disk_is_damage(tmp_path, number):
    with pytest.raises(DamagedFileError, match=os.strerror(number)), reading(tmp_path):
        raise OSError(number, "as a library says it")
