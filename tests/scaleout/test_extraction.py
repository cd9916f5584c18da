"""extract_shards equals extract for every source and engine, and never embeds an image twice."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import fsspec
import joblib
import numpy as np
import pytest
from pyarrow import parquet

from featuretl import LinearProbeClassifier, extract, extract_shards, load_shards, save_shards
from featuretl.exceptions import BackboneError, ImageError, InputError, ParameterError, StoreError
from featuretl.scaleout import engines as engines_module
from featuretl.scaleout import extraction as extraction_module
from featuretl.scaleout import worker as worker_module
from featuretl.store.shared import SharedStore

OPTIONS = {"runtime": "torch", "batch_size": 10}


def rows_of(extraction) -> np.ndarray:
    return np.concatenate([rows for rows, _, _ in extraction.shards()])


def column(extraction, name: str) -> list:
    return [
        value for _, table, _ in extraction.shards() for value in table.column(name).to_pylist()
    ]


@pytest.fixture(scope="module")
def embedded(photos, tiny) -> np.ndarray:
    return extract(photos, tiny, **OPTIONS).to_numpy()


@pytest.fixture
def memory():
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").store.clear()


def test_it_gives_what_extract_gives(photo_folder, photos, embedded, tiny, tmp_path):
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


def test_finished_shards_are_skipped_and_changed_ones_embedded_again(
    photos, tiny, tmp_path, forwards
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


def test_bad_images_are_named_and_shift_nothing(photos, embedded, tiny, tmp_path, forwards):
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


def test_an_image_that_comes_twice_is_there_twice(photos, embedded, tiny, tmp_path, forwards):
    found = extract_shards([photos[0], photos[1], photos[0]], tiny, store=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(rows_of(found), embedded[[0, 1, 0]])
    assert len(forwards) == 2


def test_one_bad_shard_does_not_keep_the_others_from_being_embedded(photos, tiny, tmp_path):
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


def test_the_images_before_a_damage_are_kept(photos, tiny, tmp_path):
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for number, path in enumerate(photos[:4]):
            content = Path(path).read_bytes()
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = bytearray(tar.read_bytes())
    sizes = [Path(path).stat().st_size for path in photos[:2]]
    content[sum(512 + -(-size // 512) * 512 for size in sizes) + 3] ^= 1
    tar.write_bytes(content)
    options = {**OPTIONS, "store": tmp_path / "store"}
    with pytest.raises(ImageError, match=r"a\.tar cannot be read: a member's header is damaged"):
        extract_shards([tar, *photos[4:6]], tiny, **options)
    found = extract_shards([tar, *photos[4:6]], tiny, on_error="nan", **options)
    assert column(found, "path") == [f"{tar}/0.jpg", f"{tar}/1.jpg", *photos[4:6]]
    assert found.statistics.failed == len(found.failures) == 1


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


def test_long_shards_pass_in_pieces(photos, embedded, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "_IMAGES_PER_BATCH", 7)
    found = extract_shards(photos, tiny, store=tmp_path, **OPTIONS)
    np.testing.assert_allclose(rows_of(found), embedded, rtol=1e-5, atol=1e-6)
    assert column(found, "number") == list(range(24))


def test_urls_in_and_out(memory, photos, embedded, tiny):
    for path in photos:
        memory.put_file(path, f"/photos/{Path(path).parent.name}/{Path(path).name}")
    found = extract_shards("memory://photos", tiny, store="memory://store", **OPTIONS)
    np.testing.assert_array_equal(rows_of(found), embedded)
    assert save_shards("memory://out", found) == 24
    assert memory.exists("/out/img_emb/img_emb_0.npy")


def test_a_worker_with_another_network_is_refused(photos, tiny, tmp_path):
    space = extract_shards(photos[:1], tiny, store=tmp_path, **OPTIONS)._space
    other = type(tiny).of("test", "test_resnet", weights="random", normalize=True)
    job = worker_module.Job(other, str(tmp_path), runtime="torch", n_jobs=1, space=space.id)
    with pytest.raises(BackboneError, match="embeddings of the first worker"):
        worker_module.embed_shard(job, ("0" * 64, None))


@pytest.mark.parametrize(
    "is_killed", [False, pytest.param(True, marks=pytest.mark.slow_reliability)]
)
def test_loky_gives_the_same_and_survives_a_kill(
    is_killed, photos, embedded, tiny, tmp_path, monkeypatch
):
    started, killed = [], []
    start = engines_module._LokyEngine.start

    def noted(self):
        started.append(start(self))
        return started[-1]

    def kill(statistics):
        if is_killed and not killed:
            killed.extend(list(started[-1]._processes)[:1])
            os.kill(killed[0], 9)

    monkeypatch.setattr(engines_module._LokyEngine, "start", noted)
    options = {**OPTIONS, "store": tmp_path, "images_per_shard": 8}
    with joblib.parallel_config(n_jobs=2):
        found = extract_shards(photos, tiny, progress=kill, **options)
        # The processes are not joblib's own.
        assert joblib.Parallel()(joblib.delayed(abs)(i) for i in (-1, -2)) == [1, 2]
    assert len({id(executor) for executor in started}) == 1 + is_killed
    assert len(killed) == is_killed
    assert not found.failures
    np.testing.assert_allclose(rows_of(found), embedded, rtol=1e-5, atol=1e-6)
    assert column(found, "path") == photos


# outputs


@pytest.fixture(scope="module")
def extraction(photo_folder, tiny, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return extract_shards(photo_folder, tiny, store=store, images_per_shard=2, **OPTIONS)


def test_a_folder_is_laid_out_as_clip_retrieval_does(extraction, photos, embedded, tmp_path):
    assert save_shards(tmp_path / "out", extraction, dtype="float16") == 24
    matrices = sorted((tmp_path / "out" / "img_emb").iterdir())
    tables = sorted((tmp_path / "out" / "metadata").iterdir())
    assert [path.name for path in matrices] == [f"img_emb_{i:02d}.npy" for i in range(12)]
    assert [path.name for path in tables] == [f"metadata_{i:02d}.parquet" for i in range(12)]
    found = np.concatenate([np.load(path) for path in matrices])
    np.testing.assert_array_equal(found, embedded.astype(np.float16))
    paths = [
        p for path in tables for p in parquet.read_table(path).column("image_path").to_pylist()
    ]
    assert paths == photos
    with pytest.raises(ParameterError, match="is not empty"):
        save_shards(tmp_path / "out", extraction)
    loaded = load_shards(tmp_path / "out")
    np.testing.assert_array_equal(loaded.data, found)
    assert loaded.target_names == ["flower", "temple"]
    assert loaded.target.tolist() == ["flower"] * 12 + ["temple"] * 12
    head = LinearProbeClassifier().fit(loaded.data, loaded.target)
    assert head.score(loaded.data, loaded.target) == 1
    tables[0].unlink()
    with pytest.raises(InputError, match="24 embeddings and metadata of 22 images"):
        load_shards(tmp_path / "out")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_parquet_file_holds_lists_of_fixed_size(extraction, photos, embedded, tmp_path, dtype):
    assert save_shards(tmp_path / "out.parquet", extraction, dtype=dtype) == 24
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["path", "label", "sha256", "embedding"]
    assert table.column("path").to_pylist() == photos
    values = np.stack(table.column("embedding").to_numpy())
    np.testing.assert_array_equal(values, embedded.astype(dtype))
    assert b'"backbone": "test_resnet"' in table.schema.metadata[b"featuretl"]


def test_outputs_that_cannot_be_are_refused(extraction, tmp_path):
    for name in ("out.npy", "memory://out.parquet"):
        with pytest.raises(ParameterError, match=r"local \.parquet file or to a folder"):
            save_shards(name, extraction)
    with pytest.raises(ParameterError, match="does not exist"):
        save_shards(tmp_path / "no" / "out.parquet", extraction)
    with pytest.raises(ParameterError, match="dtype"):
        save_shards(tmp_path / "out", extraction, dtype="int8")


def test_a_damaged_shard_is_named_and_embedded_again_without_its_entry(photos, tiny, tmp_path):
    found = extract_shards(photos[:4], tiny, store=tmp_path, **OPTIONS)
    (npy,) = tmp_path.rglob("*.npy")
    npy.write_bytes(npy.read_bytes()[:-1])
    with pytest.raises(StoreError, match="remove spaces/") as raised:
        rows_of(found)
    entry = str(raised.value).split("remove ")[1].split(" there")[0]
    (tmp_path / entry).unlink()
    assert rows_of(extract_shards(photos[:4], tiny, store=tmp_path, **OPTIONS)).shape == (4, 96)


# parameters


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


def test_other_backends_of_joblib_are_refused(photos, tiny, tmp_path):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(ParameterError, match="'loky' and 'dask'; got ThreadingBackend"):
            extract_shards(photos[:1], tiny, store=tmp_path)


def test_a_shared_store_can_be_given_itself(photos, tiny, tmp_path):
    store = SharedStore(tmp_path)
    assert extract_shards(photos[:1], tiny, store=store, **OPTIONS).store is store
