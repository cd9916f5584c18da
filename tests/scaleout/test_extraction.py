"""extract_shards equals extract for every source and engine, and never embeds an image twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import fsspec
import numpy as np
import pytest

from featuretl import extract, extract_shards, save_shards
from featuretl.exceptions import BackboneError, ImageError, InputError, ParameterError, StoreError
from featuretl.scaleout import extraction as extraction_module
from featuretl.store.shared import SharedStore

OPTIONS = {"runtime": "torch", "batch_size": 10}


@pytest.fixture
def memory():
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").store.clear()


def test_it_gives_what_extract_gives(
    column, rows_of, photo_folder, photos, embedded, tiny, tmp_path
):
    found = extract_shards(photo_folder, tiny, store=tmp_path, images_per_shard=10, **OPTIONS)
    np.testing.assert_array_equal(rows_of(found), embedded)
    assert column(found, "path") == photos
    assert column(found, "label") == ["flower"] * 12 + ["temple"] * 12
    assert column(found, "number") == [*range(10), *range(10), *range(4)]
    assert [key.hex() for key in column(found, "sha256")] == [
        bytes(key).ljust(32, b"\0").hex() for key in extract(photos, tiny, **OPTIONS).keys
    ]
    statistics = found.statistics
    assert (statistics.images, statistics.embedded, statistics.failed) == (24, 24, 0)
    assert statistics.runtime == "torch"
    assert statistics.costs["forward"] > 0
    assert len(found.keys) == 3
    assert found.n_features == embedded.shape[1]
    assert "24 x" in repr(found)
    assert len(repr(found)) < 400


def test_finished_shards_are_skipped_and_changed_ones_embedded_again(
    rows_of, photos, tiny, tmp_path, forwards
):
    copies = []
    for number, path in enumerate(photos):
        copies.append(tmp_path / f"{number:02d}.jpg")
        copies[-1].write_bytes(Path(path).read_bytes())
    options = {**OPTIONS, "store": tmp_path / "store", "images_per_shard": 6}
    first = extract_shards(copies, tiny, **options)
    assert len(forwards) == 24
    seen = []
    again = extract_shards(copies, tiny, progress=lambda s: seen.append(s.done), **options)
    assert len(forwards) == 24
    assert (again.statistics.cached, again.statistics.embedded, seen[-1]) == (24, 0, 24)
    np.testing.assert_array_equal(rows_of(again), rows_of(first))
    copies[7].write_bytes(Path(photos[0]).read_bytes())
    changed = extract_shards(copies, tiny, **options)
    assert changed.statistics.embedded == 6
    assert len(forwards) == 30
    np.testing.assert_array_equal(rows_of(changed)[7], rows_of(first)[0])


def test_an_interrupted_run_goes_on(photos, tiny, tmp_path, forwards):
    def interrupt(statistics):
        if statistics.done >= 12:
            raise KeyboardInterrupt

    options = {**OPTIONS, "store": tmp_path / "store", "images_per_shard": 4}
    with pytest.raises(KeyboardInterrupt):
        extract_shards(photos, tiny, progress=interrupt, **options)
    done = len(forwards)
    assert 12 <= done < 24
    found = extract_shards(photos, tiny, **options)
    assert found.statistics.cached == done
    assert len(forwards) == 24 == len(set(forwards))


def test_bad_images_are_named_and_shift_nothing(
    column, rows_of, photos, embedded, tiny, tmp_path, forwards
):
    bad = tmp_path / "bad\n.jpg"
    bad.write_bytes(b"<html>404</html>")
    images = [*photos[:3], bad, tmp_path / "gone.jpg", *photos[3:5], b"nothing", *photos[5:7]]
    options = {**OPTIONS, "store": tmp_path / "store"}
    with pytest.raises(InputError, match="neither a file"):
        extract_shards(images, tiny, **options)
    images[4] = b""
    with pytest.raises(ImageError, match="3 of 10 images have no embedding") as raised:
        extract_shards(images, tiny, **options)
    assert str(raised.value).isprintable()
    count = len(forwards)
    found = extract_shards(images, tiny, on_error="nan", **options)
    assert len(forwards) == count
    np.testing.assert_array_equal(rows_of(found), embedded[:7])
    assert [failure.index for failure in found.failures] == [3, 0, 0]
    assert found.failures[0].name.endswith(r"bad\n.jpg")
    assert column(found, "number")[:3] == [0, 1, 2]
    extract_shards(images, tiny, on_error="nan", retry_failed=True, **options)
    assert len(forwards) == count + 3  # the good images of the shard with a bad one


def test_an_image_that_comes_twice_is_there_twice(
    rows_of, photos, embedded, tiny, tmp_path, forwards
):
    found = extract_shards([photos[0], photos[1], photos[0]], tiny, store=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(rows_of(found), embedded[[0, 1, 0]])
    assert len(forwards) == 2


def test_one_bad_shard_does_not_keep_the_others_from_being_embedded(column, photos, tiny, tmp_path):
    tar = tmp_path / "broken.tar"
    tar.write_bytes(b"x" * 5000)
    images = [*photos[:4], tar, *photos[4:8]]
    options = {**OPTIONS, "store": tmp_path / "store"}
    with pytest.raises(InputError, match=r"broken\.tar cannot be read"):
        extract_shards(images, tiny, **options)
    found = extract_shards(images, tiny, on_error="nan", **options)
    assert found.statistics.cached == 8
    assert [(failure.index, failure.name) for failure in found.failures] == [(-1, str(tar))]
    assert column(found, "path") == photos[:8]


def test_sources_that_are_not_there_are_an_error_before_any_worker_starts(tiny, tmp_path):
    with pytest.raises(InputError, match="neither a file"):
        extract_shards("nowhere.jpg", tiny, store=tmp_path / "store", **OPTIONS)
    assert not (tmp_path / "store").exists()


def test_relative_paths_mean_the_same_to_workers_that_stand_elsewhere(
    photos, tiny, tmp_path, monkeypatch, forwards
):
    (tmp_path / "images").mkdir()
    for number, path in enumerate(photos[:3]):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(Path(path).read_bytes())
    monkeypatch.chdir(tmp_path)
    options = {**OPTIONS, "on_error": "nan"}
    real = extraction_module.embed_shard

    def elsewhere(*args):
        with contextlib.chdir("/"):
            return real(*args)

    monkeypatch.setattr(extraction_module, "embed_shard", elsewhere)
    found = extract_shards("images", tiny, store="store", **options)
    assert (found.statistics.failed, len(forwards)) == (0, 3)
    monkeypatch.chdir("images")
    again = extract_shards(".", tiny, store="../store", **options)
    assert again.statistics.cached == 3


def test_urls_in_and_out(rows_of, memory, photos, embedded, tiny):
    for path in photos:
        memory.put_file(path, f"/photos/{Path(path).parent.name}/{Path(path).name}")
    found = extract_shards("memory://photos", tiny, store="memory://store", **OPTIONS)
    np.testing.assert_array_equal(rows_of(found), embedded)
    assert save_shards("memory://out", found) == 24
    assert memory.exists("/out/img_emb/img_emb_0.npy")


def test_a_damaged_shard_is_named_and_embedded_again_without_its_entry(
    rows_of, photos, tiny, tmp_path
):
    found = extract_shards(photos[:4], tiny, store=tmp_path, **OPTIONS)
    (npy,) = tmp_path.rglob("*.npy")
    npy.write_bytes(npy.read_bytes()[:-1])
    with pytest.raises(StoreError, match="remove spaces/") as raised:
        rows_of(found)
    entry = str(raised.value).split("remove ")[1].split(" there")[0]
    (tmp_path / entry).unlink()
    assert rows_of(extract_shards(photos[:4], tiny, store=tmp_path, **OPTIONS)).shape == (4, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"batch_size": 0}, "batch_size"),
        ({"images_per_shard": 0}, "images_per_shard"),
        ({"on_error": "skip"}, "on_error"),
        ({"retry_failed": 1}, "retry_failed"),
        ({"backbone": "no_such_model"}, "no_such_model"),
    ],
)
def test_parameters_are_checked(photos, tiny, tmp_path, options, message):
    options = {"backbone": tiny, **options}
    with pytest.raises((ParameterError, BackboneError), match=message):
        extract_shards(photos[:1], store=tmp_path, runtime="torch", **{**options})


def test_a_shared_store_can_be_given_itself(photos, tiny, tmp_path):
    store = SharedStore(tmp_path)
    assert extract_shards(photos[:1], tiny, store=store, **OPTIONS).store is store
