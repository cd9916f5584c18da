"""Shards: samples of Parquet files, datasets and URLs, and keys that change with the files."""

from __future__ import annotations

import io
import os
import pickle
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyarrow import parquet

from featuretl._core.files import contents
from featuretl.exceptions import ImageError, InputError
from featuretl.images import shards as shards_module
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import ParquetShard

pytestmark = pytest.mark.usefixtures("old_files")


def test_row_groups_of_images_are_shards(tmp_path, data, samples_of):
    path = tmp_path / "photos.parquet"
    table = pa.table({"image": data, "label": [0, 1, 2, 3, None, 5], "id": list("abcdef")})
    parquet.write_table(table, path, row_group_size=4)
    shards = list(find_shards(path))
    assert [type(shard) for shard in shards] == [ParquetShard, ParquetShard]
    assert [shard.images for shard in shards] == [4, 2]
    samples = samples_of(path)
    assert [sample.image for sample in samples] == data
    assert [sample.label for sample in samples] == ["0", "1", "2", "3", None, "5"]
    assert [sample.name for sample in samples] == list("abcdef")


def test_parquet_as_datasets_write_it_has_structs_of_bytes_and_path(tmp_path, data, samples_of):
    path = tmp_path / "photos.parquet"
    rows = [{"bytes": data[0], "path": "one.jpg"}, {"bytes": data[1], "path": None}, None]
    parquet.write_table(pa.table({"image": rows}), path)
    samples = samples_of(path)
    assert [sample.image for sample in samples[:2]] == data[:2]
    assert samples[0].name == "one.jpg"
    assert samples[1].name == f"{path}, row group 0, row 1"
    assert str(samples[2].image) == "the row holds no image"


def test_a_dataset_gives_its_rows_with_the_names_of_its_labels(photos, data, samples_of):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    )
    columns = {"picture": photos[:6], "label": [0, 1, 1, 0, -1, 1]}
    dataset = datasets.Dataset.from_dict(columns, features)
    shards = [
        pickle.loads(pickle.dumps(shard)) for shard in find_shards(dataset, images_per_shard=4)
    ]
    samples = [sample for shard in shards for sample in shard.samples()]
    assert [shard.images for shard in shards] == [4, 2]
    assert [sample.image for sample in samples] == photos[:6]  # embedded bytes would be bytes
    assert [sample.label for sample in samples] == ["ant", "bee", "bee", "ant", None, "bee"]
    keys = [shard.key for shard in find_shards(dataset, images_per_shard=4)]
    assert keys == [shard.key for shard in shards]
    assert len(set(keys)) == 2
    with pytest.raises(InputError, match="IterableDataset"):
        samples_of(dataset.to_iterable_dataset())


def test_keys_stay_while_nothing_changes_and_change_with_the_files(tmp_path, data, write_tar):
    tar = write_tar(tmp_path / "one.tar", {"1.jpg": data[0]})
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(data[1])

    def keys(**options):
        return [shard.key for shard in find_shards([tar, photo, data[2]], **options)]

    first = keys()
    assert keys() == first
    assert len(set(first)) == 3
    os.utime(photo, ns=(0, 0))
    write_tar(tar, {"1.jpg": data[0], "2.jpg": data[1]})
    assert [a == b for a, b in zip(keys(), first, strict=True)] == [False, False, True]


def test_what_a_shard_points_to_is_part_of_its_key(data, tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(data[0])
    table = pa.table({"image": [{"bytes": None, "path": str(image)}]})
    parquet.write_table(table, tmp_path / "i.parquet")

    def key():
        return next(iter(find_shards([str(tmp_path / "i.parquet")]))).key

    before, state = key(), image.stat()
    assert key() == before
    image.write_bytes(data[0][:-1] + b"?")
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))  # the same size and time
    assert key() != before


def test_paths_in_tables_of_images_start_at_the_table(data, memory, tmp_path, samples_of):
    memory.pipe_file("/b/c.jpg", data[2])
    (tmp_path / "a.jpg").write_bytes(data[0])
    paths = ["a.jpg", (tmp_path / "a.jpg").as_uri(), "memory://b/c.jpg"]
    table = pa.table({"image": [{"bytes": None, "path": path} for path in paths]})
    parquet.write_table(table, tmp_path / "i.parquet")
    local, behind, remote = samples_of([str(tmp_path / "i.parquet")])
    assert local.image == behind.image == str(tmp_path / "a.jpg")
    assert remote.image == data[2]


def test_urls_are_read_a_bounded_number_of_bytes_at_once(data, memory, monkeypatch, samples_of):
    urls = [f"memory://b/{i}.jpg" for i in range(4)]
    for url, content in zip(urls, data, strict=False):
        memory.pipe_file(url.removeprefix("memory:/"), content)
    read, real = [], shards_module.contents
    monkeypatch.setattr(
        shards_module, "contents", lambda fs, *args: read.append(args[0]) or real(fs, *args)
    )
    monkeypatch.setattr(shards_module, "_BATCH_BYTES", len(data[0]) + len(data[1]))
    assert [one.image for one in samples_of(urls)] == data[:4]
    assert len(read[0]) == 2
    assert sum(map(len, read)) == 4


def test_special_files_behind_urls_are_failed_rows(tmp_path, samples_of):
    os.mkfifo(tmp_path / "fifo.jpg")
    for source in ((tmp_path / "fifo.jpg").as_uri(), "file:///dev/zero"):
        (found,) = samples_of([source])
        assert isinstance(found.image, (str, ImageError))  # a path is read as any local file is


class Pieces:
    """A server's file that comes in pieces, of a size that it tells or does not tell."""

    def __init__(self, data, size=None):
        self.data, self.size, self.reads = io.BytesIO(data), size, 0

    def read(self, n):
        self.reads += 1
        return self.data.read(min(n, 1000))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize("told", [False, True])
def test_a_file_behind_a_url_is_read_whole_or_refused(told):
    data = bytes(range(256)) * 20
    file = Pieces(data, len(data) if told else None)
    server = SimpleNamespace(open=lambda path, mode: file)
    assert contents(server, ["a"], len(data)) == [data]
    file = Pieces(data, len(data) if told else None)
    (found,) = contents(server, ["a"], 2500)
    assert isinstance(found, OverflowError)
    assert file.reads == (0 if told else 3)
