"""find_shards: the shards of folders, lists, manifests, URLs and files, in order."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest
from pyarrow import parquet

from featuretl.exceptions import InputError, ParameterError
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import BytesShard, FileShard
from featuretl.images.sources import find_images
from featuretl.images.tar import TarShard

pytestmark = pytest.mark.usefixtures("old_files")


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


def test_what_lies_behind_urls_is_read_alike(memory, data, samples_of):
    for number, content in enumerate(data):
        memory.pipe_file(f"/bucket/{'ant' if number < 3 else 'bee'}/{number}.jpg", content)
    memory.pipe_file("/bucket/notes.txt", b"")
    samples = samples_of("memory://bucket")
    assert [sample.image for sample in samples] == data
    assert [sample.label for sample in samples] == ["ant"] * 3 + ["bee"] * 3
    assert samples[0].name == "memory:///bucket/ant/0.jpg"
    assert [sample.image for sample in samples_of("memory://bucket/bee/*.jpg")] == data[3:]
    memory.pipe_file(
        "/bucket/list.csv", b"path,label\nant/0.jpg,x\nmemory://bucket/bee/5.jpg,y\ngone.jpg,\n"
    )
    samples = samples_of("memory://bucket/list.csv")
    assert [sample.image for sample in samples[:2]] == [data[0], data[5]]
    assert str(samples[2].image) == "no such file"


def test_numbered_tar_files_behind_urls(memory, tmp_path, data, write_tar, samples_of):
    for number in range(9, 12):
        path = write_tar(tmp_path / "one.tar", {f"{number}.jpg": data[0], f"{number}.cls": b"1"})
        memory.pipe_file(f"/bucket/part-{number:03d}.tar", path.read_bytes())
    counted = samples_of("memory://bucket/part-{009..011}.tar")
    assert [sample.name[-7:] for sample in counted] == ["r/9.jpg", "/10.jpg", "/11.jpg"]
    assert [s.image for s in samples_of("memory://bucket/*.tar")] == [s.image for s in counted]


def test_files_bytes_and_shards_are_grouped_in_order(tmp_path, photos, data, write_tar):
    tar = write_tar(tmp_path / "one.tar", {"1.jpg": data[0]})
    shards = list(find_shards([photos[0], *data[1:4], tar, *photos[4:7]], images_per_shard=2))
    assert [type(shard) for shard in shards] == [
        FileShard, BytesShard, BytesShard, TarShard, FileShard, FileShard
    ]  # fmt: skip
    assert [sample.name for sample in shards[2].samples()] == ["image 3"]


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
def test_what_cannot_be_found_is_one_sentence(source, message, samples_of):
    with pytest.raises((InputError, ParameterError), match=message) as raised:
        samples_of(source)
    assert str(raised.value).isprintable()


def test_columns_that_are_not_there_are_named(tmp_path, samples_of):
    (tmp_path / "m.csv").write_text("what,ever\n1,2\n")
    with pytest.raises(InputError, match=r"no column of images or paths .*; it has what, ever"):
        samples_of(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path\na.jpg,b.jpg\n")
    with pytest.raises(InputError, match=r"m\.csv cannot be read: CSV parse error"):
        samples_of(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,x\na.jpg,1\n,2\n")
    with pytest.raises(InputError, match="must hold a path in every row"):
        samples_of(tmp_path / "m.csv")
    with pytest.raises(InputError, match="has no column 'species'; it has path, x"):
        samples_of(tmp_path / "m.csv", label_column="species")
