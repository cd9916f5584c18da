"""Tar files in WebDataset layout: samples, labels, skipped members and damage."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from featuretl.exceptions import ImageError, InputError
from featuretl.images import tables as tables_module
from featuretl.images import tar as tar_module
from featuretl.images.shard_sources import find_shards
from featuretl.images.shards import SkipReason


def test_a_tar_file_gives_images_with_the_labels_of_cls_and_json(
    tmp_path, data, write_tar, samples_of
):
    members = {
        "a/1.jpg": data[0], "a/1.cls": b" temple\n", "a/1.txt": b"a caption",
        "a/2.json": json.dumps({"label": 7, "species": "ant"}).encode(), "a/2.left.JPG": data[1],
        "a/3.jpg": data[2],
        "a/4.json": b"{}",  # no image
        "a/5.json": b"not json", "a/5.jpg": data[3],
    }  # fmt: skip
    path = write_tar(tmp_path / "shard.tar", members)
    samples = samples_of(path)
    assert [sample.name for sample in samples] == [
        f"{path}/a/{name}" for name in ("1.jpg", "2.left.JPG", "3.jpg", "4.json", "5.jpg")
    ]
    assert [sample.image for sample in samples[:3]] == data[:3]
    assert [sample.label for sample in samples[:3]] == ["temple", "7", None]
    assert samples[3].image == SkipReason("no image beside it")
    assert isinstance(samples[4].image, ImageError)  # its label would be lost
    assert str(samples[4].image).startswith("its .json: ")
    with pytest.raises(InputError, match=r"has no 'species' in the \.json of a/1\.jpg"):
        samples_of(path, label_column="species")


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
def test_compressed_tar_files_are_read_alike(tmp_path, data, suffix, mode, write_tar, samples_of):
    path = write_tar(tmp_path / f"shard{suffix}", {"1.jpg": data[0]}, mode)
    assert [sample.image for sample in samples_of(path)] == data[:1]


def test_nothing_of_a_tar_file_is_unpacked_and_only_regular_members_are_read(
    tmp_path, data, monkeypatch, write_tar, samples_of
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
    samples = samples_of(path)
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
def test_a_damaged_tar_file_is_named(tmp_path, data, damage, write_tar, samples_of):
    path = write_tar(tmp_path / "shard\n.tar", {"1.jpg": b"x" * 20_000, "2.jpg": data[1]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"shard\\n\.tar cannot be read: ") as raised:
        samples_of(path)
    assert str(raised.value).isprintable()


def test_names_that_are_not_utf8_can_be_written(tmp_path, data, samples_of):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("not-utf8-\udcff.jpg")
        member.size = len(data[0])
        tar.addfile(member, io.BytesIO(data[0]))
    (sample,) = samples_of(path)
    sample.name.encode()
    assert sample.image == data[0]


def test_a_named_label_column_is_not_ignored(data, tmp_path, write_tar, samples_of):
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.cls", b"3")])
    assert samples_of([str(tmp_path / "a.tar")])[0].label == "3"
    with pytest.raises(InputError, match=r"a\.tar has no 'kind'"):
        samples_of([str(tmp_path / "a.tar")], label_column="kind")


def test_what_a_tar_file_passes_over_is_named(data, tmp_path, write_tar, samples_of):
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
    for one in samples_of([str(path)]):
        found.setdefault(type(one.image), []).append(one.image)
    assert found[bytes] == [data[0], data[1], data[2], data[3], data[4]]
    assert [one.label for one in samples_of([str(path)]) if one.image == data[2]] == ["ant"]
    reasons = [image.reason for image in found[SkipReason]]
    assert sorted(reason.split()[0] for reason in reasons) == ["a", "beside", "no"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "cut between members"])
def test_a_tar_file_that_ends_early_is_named(damage, data, tmp_path, write_tar):
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


def test_two_archives_in_one_file_are_named(data, tmp_path, write_tar):
    first = write_tar(tmp_path / "1.tar", [("1.jpg", data[0])]).read_bytes()
    second = write_tar(tmp_path / "2.tar", [("2.jpg", data[1])]).read_bytes()
    for name, pack in (("a.tar", bytes), ("a.tgz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(first) + pack(second))
        found = next(iter(find_shards([str(tmp_path / name)]))).samples()
        assert next(found).image == data[0]
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            next(found)


def test_a_compressed_tar_file_may_not_expand_without_bounds(
    tmp_path, monkeypatch, write_tar, samples_of
):
    monkeypatch.setattr(tables_module, "_MIN_LIMIT", 0)
    zeros = [(f"{i}.jpg", b"\0" * 100_000) for i in range(100)]
    packed = gzip.compress(write_tar(tmp_path / "a.tar", zeros).read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(InputError, match="expands to over"):
        samples_of([str(tmp_path / "a.tar.gz")])


def test_json_of_any_depth_is_no_label_and_no_crash(data, tmp_path, write_tar, samples_of):
    deep = b"[" * 100_000 + b"]" * 100_000
    write_tar(tmp_path / "a.tar", [("0.jpg", data[0]), ("0.json", deep)])
    (found,) = samples_of([str(tmp_path / "a.tar")])
    assert found.label is None
    assert isinstance(found.image, (bytes, ImageError))


def test_beside_a_jpeg_a_heic_file_is_no_further_image(tmp_path, data, write_tar, samples_of):
    path = write_tar(
        tmp_path / "shard.tar", {"1.heic": b"heic", "1.jpg": data[0], "2.HEIC": b"heic"}
    )
    found = {sample.name.rpartition("/")[2]: sample.image for sample in samples_of(path)}
    assert found["1.jpg"] == data[0]
    assert isinstance(found["1.heic"], SkipReason)
    assert found["2.HEIC"] == b"heic"
