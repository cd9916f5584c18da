"""Labels are equal from every kind of file, hidden files are skipped, and nothing gets lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from featuretl._core.files import contents
from featuretl.exceptions import ImageError, InputError
from featuretl.extraction.outputs import load_embeddings
from featuretl.images import shards as shards_module
from featuretl.images import tables as tables_module
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import SkipReason
from featuretl.images.sources import find_images
from featuretl.images.tables import open_parquet


@pytest.fixture(scope="module")
def data(photos: list[str]) -> list[bytes]:
    return [Path(path).read_bytes() for path in photos[:6]]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(source, **options):
    return [sample for shard in find_shards(source, **options) for sample in shard.samples()]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1.0, 2.5, None], ["1.0", "2.5", None]),
        ([1, 2, 3], ["1", "2", "3"]),
        ([True, False, True], ["True", "False", "True"]),
        (["007", " a", ""], ["007", " a", None]),
    ],
)
def test_a_label_is_the_same_class_from_every_file(values, names, photos, data, tmp_path):
    datasets = pytest.importorskip("datasets")
    frame = pd.DataFrame({"path": photos[:3], "label": values})
    frame.to_csv(tmp_path / "m.csv", index=False)
    frame.to_parquet(tmp_path / "m.parquet")
    table = pa.table({"image": data[:3], "label": pa.array(values)})
    parquet.write_table(table, tmp_path / "images.parquet")
    coded = table.set_column(1, "label", pa.array(values).dictionary_encode())
    parquet.write_table(coded, tmp_path / "coded.parquet")
    members = []
    for i, value in enumerate(values):
        members += [(f"{i}.jpg", data[i]), (f"{i}.json", json.dumps({"label": value}).encode())]
    write_tar(tmp_path / "a.tar", members)
    for name in ("m.csv", "m.parquet", "images.parquet", "coded.parquet", "a.tar"):
        assert [one.label for one in samples([str(tmp_path / name)])] == names, name
    for name in ("m.csv", "m.parquet"):
        assert find_images([tmp_path / name]).labels == names
    dataset = datasets.Dataset.from_dict({"image": data[:3], "label": values})
    assert [one.label for one in samples(dataset)] == names


def test_class_numbers_of_datasets_keep_their_names(photos, data, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    columns = {"image": photos[:3], "label": [1, 0, -1]}
    dataset = datasets.Dataset.from_dict(columns, datasets.Features(features))
    dataset.to_parquet(str(tmp_path / "images.parquet"))
    schema = parquet.read_schema(tmp_path / "images.parquet")
    table = pa.table({"path": photos[:3], "label": [1, 0, -1]})
    parquet.write_table(table.replace_schema_metadata(schema.metadata), tmp_path / "m.parquet")
    for source in (dataset, str(tmp_path / "images.parquet"), str(tmp_path / "m.parquet")):
        assert [one.label for one in samples(source)] == ["bee", "ant", None]
    assert find_images([tmp_path / "m.parquet"]).labels == ["bee", "ant", None]
    table = table.set_column(1, "label", pa.array([1, 0, 2]))
    parquet.write_table(table.replace_schema_metadata(schema.metadata), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"'label' of .*m\.parquet.* 2 class names; got 2"):
        find_images([tmp_path / "m.parquet"])


def test_a_list_is_no_label_wherever_it_stands(photos, data, tmp_path):
    lists = pa.table({"path": photos[:1], "label": [["a", "b"]]})
    parquet.write_table(lists, tmp_path / "m.parquet")
    tagged = pa.table({"image": data[:1], "label": [["a", "b"]]})
    parquet.write_table(tagged, tmp_path / "i.parquet")
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.json", b'{"label": ["a", "b"]}')])
    for name in ("m.parquet", "i.parquet", "a.tar"):
        with pytest.raises(InputError, match=rf"'label' of .*{name}.* one value"):
            samples([str(tmp_path / name)])
    with pytest.raises(InputError, match=r"'label' of .*m\.parquet.* one value"):
        find_images([tmp_path / "m.parquet"])


def test_a_named_label_column_is_not_ignored(data, tmp_path):
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.cls", b"3")])
    assert samples([str(tmp_path / "a.tar")])[0].label == "3"
    with pytest.raises(InputError, match=r"a\.tar has no 'kind'"):
        samples([str(tmp_path / "a.tar")], label_column="kind")


@pytest.mark.parametrize("option", ["path_column", "label_column", "group_column"])
def test_columns_of_what_has_none_are_refused(option, photo_folder, photos, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(photos))
    for source in (photo_folder, photos[0], tmp_path / "list.txt", f"{photo_folder}/*/*.jpg"):
        with pytest.raises(InputError, match=f"{option} names 'x'"):
            find_images([source], **{option: "x"})


def test_every_lister_leaves_hidden_files_out(photos, data, tmp_path):
    folder = tmp_path / "h"
    (folder / ".d").mkdir(parents=True)
    for name in ("a.jpg", ".b.jpg", "._c.jpg", ".d/e.jpg"):
        (folder / name).write_bytes(data[0])
    write_tar(tmp_path / "a.tar", [("a.jpg", data[0]), ("._a.jpg", b"?"), (".d/e.jpg", data[0])])
    shown = [str(folder / "a.jpg")]
    for source in (folder, f"{folder}/*", f"{folder}/**/*.jpg", f"{folder}/**"):
        assert find_images([source]).paths == shown
    for source in (str(folder), f"{folder}/*.jpg", folder.as_uri(), f"{folder.as_uri()}/*.jpg"):
        assert [one.name for one in samples([source])] == shown, source
    found = samples([str(tmp_path / "a.tar")])
    assert sorted(isinstance(one.image, bytes) for one in found) == [False, False, True]
    assert find_images([f"{folder}/.d/*.jpg"]).paths == [str(folder / ".d" / "e.jpg")]


def test_what_a_tar_file_passes_over_is_named(data, tmp_path):
    members = [("v1.2.jpg", data[0]), ("v1.3.jpg", data[1]), ("x.jpg", data[2])]
    members += [
        ("x.mask.png", b"mask"),
        ("x.meta.json", b'{"label": "ant"}'),
        ("dup.jpg", data[3]),
        ("dup.jpg", data[4]),
        ("y.txt", b""),
    ]
    path = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("z.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "x.jpg"
        tar.addfile(link)
    found = {}
    for one in samples([str(path)]):
        found.setdefault(type(one.image), []).append(one.image)
    assert found[bytes] == [data[0], data[1], data[2], data[3], data[4]]
    assert [one.label for one in samples([str(path)]) if one.image == data[2]] == ["ant"]
    reasons = [image.reason for image in found[SkipReason]]
    assert sorted(reason.split()[0] for reason in reasons) == ["a", "beside", "no"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "cut between members"])
def test_a_tar_file_that_ends_early_is_named(damage, data, tmp_path):
    path = write_tar(tmp_path / "a.tar", [(f"{i}.jpg", one) for i, one in enumerate(data)])
    header = sum(512 + -(-len(one) // 512) * 512 for one in data[:3])
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[header + 3] ^= 1
    else:
        del content[header + (200 if damage == "cut" else 0) :]
    path.write_bytes(content)
    read = []
    with pytest.raises(InputError, match=r"a\.tar cannot be read"):
        for shard in find_shards([str(path)]):
            for sample in shard.samples():
                read.append(sample.image)
            pytest.fail("the end was not missed")
    assert read == data[:3]


def test_two_archives_in_one_file_are_named(data, tmp_path):
    first = write_tar(tmp_path / "1.tar", [("1.jpg", data[0])]).read_bytes()
    second = write_tar(tmp_path / "2.tar", [("2.jpg", data[1])]).read_bytes()
    for name, pack in (("a.tar", bytes), ("a.tgz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(first) + pack(second))
        found = next(iter(find_shards([str(tmp_path / name)]))).samples()
        assert next(found).image == data[0]
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            next(found)


def test_files_that_expand_are_refused_before_they_are_read(tmp_path):
    value = pa.array([b"\0" * 20 * 2**20] * 10).dictionary_encode()
    parquet.write_table(pa.table({"image": value}), tmp_path / "i.parquet", compression="zstd")
    text = pa.array(["x" * 2**20] * 300).dictionary_encode()
    parquet.write_table(pa.table({"path": text}), tmp_path / "m.parquet", compression="zstd")
    again = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pa.array([b"image"]))
    parquet.write_table(pa.table({"image": again}), tmp_path / "again.parquet")
    label = pa.DictionaryArray.from_arrays(np.zeros(100, np.int32), pa.array(["x" * 250_000]))
    table = pa.table({"image": [b"image"] * 100, "label": label})
    parquet.write_table(table, tmp_path / "l.parquet")
    np.savez_compressed(tmp_path / "x.npz", X=np.zeros((2**10, 2**14), np.float32))
    for use in (
        lambda: samples([str(tmp_path / "i.parquet")]),
        lambda: find_images([tmp_path / "m.parquet"]),
        lambda: samples([str(tmp_path / "l.parquet")]),
        lambda: load_embeddings(tmp_path / "x.npz"),
    ):
        with pytest.raises(InputError, match="cannot be read"):
            use()
    with pytest.raises(InputError, match="claims 20,000 images in one row group"):
        samples([str(tmp_path / "again.parquet")])


def test_a_compressed_tar_file_may_not_expand_without_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(tables_module, "_MIN_LIMIT", 0)
    zeros = [(f"{i}.jpg", b"\0" * 100_000) for i in range(100)]
    packed = gzip.compress(write_tar(tmp_path / "a.tar", zeros).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(InputError, match="expands to over"):
        samples([str(tmp_path / "a.tar.gz")])


def test_json_of_any_depth_is_no_label_and_no_crash(data, tmp_path):
    deep = b"[" * 100_000 + b"]" * 100_000
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.json", deep)])
    (found,) = samples([str(tmp_path / "a.tar")])
    assert found.label is None
    assert isinstance(found.image, (bytes, ImageError))


def test_what_a_shard_points_to_is_part_of_its_key(photos, data, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "RACY_NS", -(10**18))
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


def test_paths_in_tables_of_images_start_at_the_table(data, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/b/c.jpg", data[2])
    (tmp_path / "a.jpg").write_bytes(data[0])
    paths = ["a.jpg", (tmp_path / "a.jpg").as_uri(), "memory://b/c.jpg"]
    table = pa.table({"image": [{"bytes": None, "path": path} for path in paths]})
    parquet.write_table(table, tmp_path / "i.parquet")
    local, behind, remote = samples([str(tmp_path / "i.parquet")])
    assert local.image == behind.image == str(tmp_path / "a.jpg")
    assert remote.image == data[2]
    memory.store.clear()


def test_urls_are_read_a_bounded_number_of_bytes_at_once(data, monkeypatch):
    memory = fsspec.filesystem("memory")
    urls = [f"memory://b/{i}.jpg" for i in range(4)]
    for url, content in zip(urls, data, strict=False):
        memory.pipe_file(url.removeprefix("memory:/"), content)
    read, real = [], shards_module.contents
    monkeypatch.setattr(
        shards_module, "contents", lambda fs, *args: read.append(args[0]) or real(fs, *args)
    )
    monkeypatch.setattr(shards_module, "_BATCH_BYTES", len(data[0]) + len(data[1]))
    assert [one.image for one in samples(urls)] == data[:4]
    assert len(read[0]) == 2
    assert sum(map(len, read)) == 4
    memory.store.clear()


def test_what_the_system_refuses_to_list_is_one_sentence(data, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data[0])
    (tmp_path / "b.jpg").symlink_to("b.jpg")  # a link to itself is a bad image, not the end
    assert len(find_images([tmp_path]).paths) == len(samples(str(tmp_path))) == 2
    for use in (samples, lambda source: find_images([source])):
        with pytest.raises(InputError, match="File name too long"):
            use("x" * 300)


def test_special_files_in_the_place_of_embeddings_are_refused_without_waiting(tmp_path):
    (tmp_path / "a.npy").touch()
    os.mkfifo(tmp_path / "a.npy.json")
    os.mkfifo(tmp_path / "b.npy")
    (tmp_path / "b.npy.json").write_text("{}")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(InputError, match="not a regular file"):
            load_embeddings(tmp_path / name)


def test_special_files_behind_urls_are_failed_rows(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    for source in ((tmp_path / "fifo.jpg").as_uri(), "file:///dev/zero"):
        (found,) = samples([source])
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


def test_a_large_value_that_comes_again_is_read_a_few_rows_at_a_time(tmp_path):
    value = pa.array([b"\0" * 15_000_000] * 20).dictionary_encode().cast(pa.binary())
    parquet.write_table(pa.table({"image": value}), tmp_path / "i.parquet", compression="zstd")
    with (tmp_path / "i.parquet").open("rb") as file:
        _, rows = open_parquet(file, ["image"])
    assert rows * 15_000_000 <= 2**25
    assert sum(1 for _ in samples([str(tmp_path / "i.parquet")])) == 20


def test_a_pattern_may_match_manifests_and_lists(photos, tmp_path):
    (tmp_path / "a.csv").write_text(f"path,label\n{photos[0]},x\n")
    (tmp_path / "b.csv").write_text(f"path,label\n{photos[1]},y\n")
    (tmp_path / "c.txt").write_text(f"{photos[2]}\n")
    found = find_images([tmp_path / "*.csv", tmp_path / "*.txt"])
    assert (found.paths, found.labels) == (photos[:3], ["x", "y", None])
    with pytest.raises(InputError, match="neither a file"):
        find_images([tmp_path / "*.parquet"])
