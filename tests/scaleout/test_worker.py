"""A worker embeds one shard in pieces, keeps what is good, and names what is bad."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from featuretl import extract_shards
from featuretl.exceptions import BackboneError, ImageError
from featuretl.scaleout import worker as worker_module

OPTIONS = {"runtime": "torch", "batch_size": 10}


def test_the_images_before_a_damage_are_kept(column, photos, tiny, tmp_path):
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


def test_long_shards_pass_in_pieces(column, rows_of, photos, embedded, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "_IMAGES_PER_BATCH", 7)
    found = extract_shards(photos, tiny, store=tmp_path, **OPTIONS)
    np.testing.assert_allclose(rows_of(found), embedded, rtol=1e-5, atol=1e-6)
    assert column(found, "number") == list(range(24))


def test_a_worker_with_another_network_is_refused(photos, tiny, tmp_path):
    space = extract_shards(photos[:1], tiny, store=tmp_path, **OPTIONS)._space
    other = type(tiny).of("test", "test_resnet", weights="random", normalize=True)
    job = worker_module.Job(other, str(tmp_path), runtime="torch", n_jobs=1, space=space.id)
    with pytest.raises(BackboneError, match="embeddings of the first worker"):
        worker_module.embed_shard(job, ("0" * 64, None))
