"""Special files and files that change while they are read fail as rows; the run continues."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from known_rows import present, put

from featuretl import EmbeddingStore, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError, InputError, StoreError
from featuretl.images import decode as decode_module
from featuretl.images.decode import read_file
from featuretl.images.sources import find_images

TINY = BackboneSpec.of("test", "test_resnet", weights="random")
YEAR = 365 * 24 * 3600 * 10**9


def test_special_files_are_failed_rows_and_the_run_goes_on(tmp_path, photos, store):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    special = sorted(map(str, tmp_path.glob("*.jpg")))
    assert len(special) == 3
    extraction = extract([*special, *photos[:2]], TINY, store=store, on_error="nan")
    assert [failure.name for failure in extraction.failures] == special
    assert np.isnan(extraction.to_numpy()[:3]).all()
    assert np.isfinite(extraction.to_numpy()[3:]).all()


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(decode_module.os, "open", refuse)
    with pytest.raises(ImageError, match="Permission denied"):
        read_file(tmp_path / "photo.jpg")


def test_a_file_replaced_while_it_is_read_is_one_of_the_two(tmp_path, monkeypatch):
    path, other = tmp_path / "photo.jpg", tmp_path / "other.jpg"
    path.write_bytes(b"a" * 5000)
    other.write_bytes(b"b" * 9000)
    read = os.read

    def piecewise(descriptor, size):
        if other.exists():
            other.replace(path)
        return read(descriptor, min(size, 1000))

    monkeypatch.setattr(decode_module.os, "read", piecewise)
    assert read_file(path)[0] == b"a" * 5000
    assert read_file(path)[0] == b"b" * 9000


@pytest.mark.parametrize("off", [-YEAR, YEAR])
def test_changed_content_is_embedded_again_whatever_the_clock_says(
    tmp_path, photos, store, monkeypatch, off
):
    now = time.time_ns
    monkeypatch.setattr(decode_module.time, "time_ns", lambda: now() + off)
    path = tmp_path / "photo.jpg"
    for photo, embedded in [(photos[0], 1), (photos[1], 1), (photos[0], 0)]:
        path.write_bytes(Path(photo).read_bytes())
        os.utime(path, (1, 1))
        assert extract([path], TINY, store=store).statistics.embedded == embedded


@pytest.mark.parametrize("suffix", [".tar", ".zip", ".jpg"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_are_never_unpacked(tmp_path, store, kind, suffix):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / f"photos{suffix}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../escaped.jpg", "x")
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("../escaped.jpg")
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises((ImageError, InputError)):
        extract(find_images([path]).paths, TINY, store=store)
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_a_store_that_may_not_be_written_is_read_all_the_same(cache, monkeypatch):
    put(EmbeddingStore(cache), range(10))
    monkeypatch.setattr(
        os, "access", lambda path, mode: not mode & os.W_OK
    )  # root ignores file permissions
    reader = EmbeddingStore(cache)
    assert present(reader, range(10)) == set(range(10))
    assert reader.info()[0].rows == 10
    with pytest.raises(StoreError, match=re.escape(str(cache))):
        put(reader, [10])
