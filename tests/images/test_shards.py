"""Shards: tar files, Parquet files, datasets, manifests, folders and URLs, read as streams."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from featuretl.exceptions import ImageError, InputError, ParameterError
from featuretl.images import shards as shards_module
from featuretl.images import tar as tar_module
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import BytesShard, FileShard, ParquetShard, SkipReason
from featuretl.images.sources import find_images
from featuretl.images.tar import TarShard


@pytest.fixture(scope="module")
def data(photos: list[str]) -> list[bytes]:
    return [Path(path).read_bytes() for path in photos[:6]]


@pytest.fixture(autouse=True)
def old_files(monkeypatch):
    """Files that were just written are known again, as old ones are."""
    monkeypatch.setattr(shards_module, "RACY_NS", -(10**18))


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def read(source, **options):
    return [sample for shard in find_shards(source, **options) for sample in shard.samples()]


# tar files


def test_a_tar_file_gives_images_with_the_labels_of_cls_and_json(tmp_path, data):
    members = {
        "a/1.jpg": data[0], "a/1.cls": b" temple\n", "a/1.txt": b"a caption",
        "a/2.json": json.dumps({"label": 7, "species": "ant"}).encode(), "a/2.left.JPG": data[1],
        "a/3.jpg": data[2],
        "a/4.json": b"{}",  # no image
        "a/5.json": b"not json", "a/5.jpg": data[3],
    }  # fmt: skip
    path = write_tar(tmp_path / "shard.tar", members)
    samples = read(path)
    assert [sample.name for sample in samples] == [
        f"{path}/a/{name}" for name in ("1.jpg", "2.left.JPG", "3.jpg", "4.json", "5.jpg")
    ]
    assert [sample.image for sample in samples[:3]] == data[:3]
    assert [sample.label for sample in samples[:3]] == ["temple", "7", None]
    assert samples[3].image == SkipReason("no image beside it")
    assert isinstance(samples[4].image, ImageError)  # its label would be lost
    assert str(samples[4].image).startswith("its .json: ")
    with pytest.raises(InputError, match=r"has no 'species' in the \.json of a/1\.jpg"):
        read(path, label_column="species")


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
def test_compressed_tar_files_are_read_alike(tmp_path, data, suffix, mode):
    path = write_tar(tmp_path / f"shard{suffix}", {"1.jpg": data[0]}, mode)
    assert [sample.image for sample in read(path)] == data[:1]


def test_nothing_of_a_tar_file_is_unpacked_and_only_regular_members_are_read(
    tmp_path, data, monkeypatch
):
    monkeypatch.setattr(tar_module, "MAX_FILE_BYTES", 10_000)
    path = tmp_path / "in" / "shard.tar"
    path.parent.mkdir()
    write_tar(path, {"../../1.jpg": data[0], "/2.jpg": data[1], "3.jpg": b"x" * 10_001})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("4.jpg", tarfile.SYMTYPE), ("5.jpg", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    samples = read(path)
    assert [sample.image for sample in samples[:2]] == data[:2]
    assert [sample.image for sample in samples[2:4]] == [
        SkipReason("a link"),
        SkipReason("a device"),
    ]
    assert isinstance(samples[4].image, ImageError)
    assert len(samples) == 5
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "damage", [lambda all_: all_[:5000], lambda all_: b"<html>404</html>" * 99, lambda all_: b""]
)
def test_a_damaged_tar_file_is_named(tmp_path, data, damage):
    path = write_tar(tmp_path / "shard\n.tar", {"1.jpg": b"x" * 20_000, "2.jpg": data[1]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"shard\\n\.tar cannot be read: ") as raised:
        read(path)
    assert str(raised.value).isprintable()


def test_names_that_are_not_utf8_can_be_written(tmp_path, data):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("not-utf8-\udcff.jpg")
        member.size = len(data[0])
        tar.addfile(member, io.BytesIO(data[0]))
    (sample,) = read(path)
    sample.name.encode()
    assert sample.image == data[0]


# Parquet files and datasets


def test_row_groups_of_images_are_shards(tmp_path, data):
    path = tmp_path / "photos.parquet"
    table = pa.table({"image": data, "label": [0, 1, 2, 3, None, 5], "id": list("abcdef")})
    parquet.write_table(table, path, row_group_size=4)
    shards = list(find_shards(path))
    assert [type(shard) for shard in shards] == [ParquetShard, ParquetShard]
    assert [shard.images for shard in shards] == [4, 2]
    samples = read(path)
    assert [sample.image for sample in samples] == data
    assert [sample.label for sample in samples] == ["0", "1", "2", "3", None, "5"]
    assert [sample.name for sample in samples] == list("abcdef")


def test_parquet_as_datasets_write_it_has_structs_of_bytes_and_path(tmp_path, data):
    path = tmp_path / "photos.parquet"
    rows = [{"bytes": data[0], "path": "one.jpg"}, {"bytes": data[1], "path": None}, None]
    parquet.write_table(pa.table({"image": rows}), path)
    samples = read(path)
    assert [sample.image for sample in samples[:2]] == data[:2]
    assert samples[0].name == "one.jpg"
    assert samples[1].name == f"{path}, row group 0, row 1"
    assert str(samples[2].image) == "the row holds no image"


def test_a_dataset_gives_its_rows_with_the_names_of_its_labels(photos, data):
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
        read(dataset.to_iterable_dataset())


# manifests, folders, URLs


def test_manifests_are_read_in_pieces(tmp_path, photos):
    names = [os.path.relpath(path, tmp_path) for path in photos]
    labels = [f"{i:03d}" for i in range(len(photos))]
    table = pa.table({"file": names, "species": labels})
    parquet.write_table(table, tmp_path / "m.parquet")
    rows = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (tmp_path / "m.csv").write_text("file,species\n" + rows)
    (tmp_path / "m.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    for name in ("m.csv", "m.parquet", "m.txt"):
        shards = list(
            find_shards(
                tmp_path / name,
                label_column=None if name == "m.txt" else "species",
                images_per_shard=10,
            )
        )
        assert [shard.images for shard in shards] == [10, 10, 4]
        files = [file for shard in shards for file in shard.files]
        assert [os.path.realpath(file.path) for file in files] == [
            os.path.realpath(p) for p in photos
        ]
        assert name == "m.txt" or [file.label for file in files] == labels
        assert all(file.state for file in files)


def test_folders_are_walked_in_the_order_of_find_images(tmp_path, photo_folder, photos):
    for name in ("b/2.jpg", "b.jpg", "b/a/1.png", "B/0.gif", "b/.hidden/1.jpg", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    for folder in (tmp_path, photo_folder):
        (shard,) = find_shards(folder)
        images = find_images([folder])
        assert [file.path for file in shard.files] == images.paths
        assert [file.label for file in shard.files] == images.labels


def test_what_lies_behind_urls_is_read_alike(memory, data):
    for number, content in enumerate(data):
        memory.pipe_file(f"/bucket/{'ant' if number < 3 else 'bee'}/{number}.jpg", content)
    memory.pipe_file("/bucket/notes.txt", b"")
    samples = read("memory://bucket")
    assert [sample.image for sample in samples] == data
    assert [sample.label for sample in samples] == ["ant"] * 3 + ["bee"] * 3
    assert samples[0].name == "memory:///bucket/ant/0.jpg"
    assert [sample.image for sample in read("memory://bucket/bee/*.jpg")] == data[3:]
    memory.pipe_file(
        "/bucket/list.csv", b"path,label\nant/0.jpg,x\nmemory://bucket/bee/5.jpg,y\ngone.jpg,\n"
    )
    samples = read("memory://bucket/list.csv")
    assert [sample.image for sample in samples[:2]] == [data[0], data[5]]
    assert str(samples[2].image) == "no such file"


def test_numbered_tar_files_behind_urls(memory, tmp_path, data):
    for number in range(9, 12):
        path = write_tar(tmp_path / "one.tar", {f"{number}.jpg": data[0], f"{number}.cls": b"1"})
        memory.pipe_file(f"/bucket/part-{number:03d}.tar", path.read_bytes())
    counted = read("memory://bucket/part-{009..011}.tar")
    assert [sample.name[-7:] for sample in counted] == ["r/9.jpg", "/10.jpg", "/11.jpg"]
    assert [s.image for s in read("memory://bucket/*.tar")] == [s.image for s in counted]


def test_files_bytes_and_shards_are_grouped_in_order(tmp_path, photos, data):
    tar = write_tar(tmp_path / "one.tar", {"1.jpg": data[0]})
    shards = list(find_shards([photos[0], *data[1:4], tar, *photos[4:7]], images_per_shard=2))
    assert [type(shard) for shard in shards] == [
        FileShard, BytesShard, BytesShard, TarShard, FileShard, FileShard
    ]  # fmt: skip
    assert [sample.name for sample in shards[2].samples()] == ["image 3"]


# keys


def test_keys_stay_while_nothing_changes_and_change_with_the_files(tmp_path, data):
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


# what cannot be


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "No images were named"),
        (["nowhere/at/all.jpg"], "neither a file"),
        (["", "a.jpg"], "is empty text"),
        ([3], "Shards are made of paths, URLs, bytes"),
        ("memory://nowhere/at/all", "cannot be read|holds, or matches, no image"),
        ("memory://nowhere/all.tar", "cannot be read"),
        ("no-such-protocol://a/b", "on no file system that can be used here"),
        ("memory://a::file://b.tar", "chain of URLs"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(source, message):
    with pytest.raises((InputError, ParameterError), match=message) as raised:
        read(source)
    assert str(raised.value).isprintable()


def test_columns_that_are_not_there_are_named(tmp_path):
    (tmp_path / "m.csv").write_text("what,ever\n1,2\n")
    with pytest.raises(InputError, match=r"no column of images or paths .*; it has what, ever"):
        read(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path\na.jpg,b.jpg\n")
    with pytest.raises(InputError, match=r"m\.csv cannot be read: CSV parse error"):
        read(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,x\na.jpg,1\n,2\n")
    with pytest.raises(InputError, match="must hold a path in every row"):
        read(tmp_path / "m.csv")
    with pytest.raises(InputError, match="has no column 'species'; it has path, x"):
        read(tmp_path / "m.csv", label_column="species")
