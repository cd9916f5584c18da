"""A worker embeds one shard in pieces, keeps what is good, and names what is bad."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from featuretl import extract_shards
from featuretl.exceptions import BackboneError, FeatureTLError, ImageError, InputError
from featuretl.images.shards import DamagedShardError, Sample, SkipReason
from featuretl.scaleout import worker as worker_module
from featuretl.scaleout.worker import Receipt

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
    with pytest.raises(ImageError, match=r"a\.tar .*header is damaged"):
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
    with pytest.raises(BackboneError, match="first worker"):
        worker_module.embed_shard(job, ("0" * 64, None))


@pytest.fixture
def failing(monkeypatch):
    """Make `embed_shard` raise a given error; return the jobs of the calls."""
    jobs = []

    def set_(error):
        def embed(key, shard):
            raise error

        monkeypatch.setattr(
            worker_module,
            "_worker_of",
            lambda job: jobs.append(job) or SimpleNamespace(embed=embed),
        )
        return jobs

    return set_


KEYED = ("0" * 64, SimpleNamespace(name="shard 7"))
JOB = worker_module.Job("test_resnet", "memory://store")


@pytest.mark.parametrize(
    "error, message",
    [
        (RuntimeError("odd\n"), r"shard 7 cannot be embedded: unexpected RuntimeError.*a bug"),
        (MemoryError(), "shard 7 cannot be embedded: out of memory.*smaller batch_size"),
        (BackboneError("other libraries"), "^other libraries$"),
    ],
)
def test_errors_that_end_the_run_are_one_sentence(error, message, failing):
    failing(error)
    with pytest.raises(FeatureTLError, match=message) as raised:
        worker_module.embed_shard(JOB, KEYED)
    assert str(raised.value).isprintable()


def test_an_unreadable_shard_is_a_receipt(failing):
    failing(InputError("it is damaged"))
    assert worker_module.embed_shard(JOB, KEYED) == Receipt(None, error="it is damaged")


def test_a_careful_worker_decodes_in_child_processes(failing):
    jobs = failing(InputError("any"))
    worker_module.embed_shard(JOB, KEYED)
    worker_module.embed_shard(JOB, KEYED, careful=True)
    worker_module.embed_shard(replace(JOB, decode_timeout=5.0), KEYED, careful=True)
    assert [job.decode_timeout for job in jobs] == [None, worker_module.CAREFUL_SECONDS, 5.0]


def test_jobs_of_one_backbone_share_it_and_at_most_three_are_kept(tiny):
    worker_module.release()
    jobs = [worker_module.Job(tiny, f"memory://{i}") for i in range(4)]
    try:
        workers = [worker_module._worker_of(job) for job in jobs]
        assert len({id(worker.source) for worker in workers}) == 1
        assert worker_module._worker_of(jobs[3]) is workers[3]
        assert list(worker_module._workers) == jobs[1:]
        other = worker_module._worker_of(replace(jobs[3], runtime="torch"))
        assert other.source is not workers[3].source
    finally:
        worker_module.release()
    assert not worker_module._workers


def test_files_that_are_no_images_are_skipped_by_name():
    samples = [Sample("a.jpg", b"a"), Sample("b\n.jpg", SkipReason("it is text")), Sample("c", b"")]
    skipped = []
    found = list(worker_module._images(samples, skipped))
    assert [sample.name for sample in found] == ["a.jpg", "c"]
    assert skipped == [r"b\n.jpg (it is text)"]


def test_a_damage_stands_for_all_images_after_it():
    def damaged(n):
        yield from (Sample(f"{i}.jpg", b"") for i in range(n))
        raise DamagedShardError("the file ends")

    *good, last = worker_module._images(damaged(2), [])
    assert [sample.name for sample in good] == ["0.jpg", "1.jpg"]
    assert isinstance(last.image, ImageError) and str(last.image) == "the file ends"
    with pytest.raises(DamagedShardError):
        list(worker_module._images(damaged(0), []))


def test_numbers_count_all_images_of_a_shard():
    rows = worker_module._Rows()
    assert rows.table().num_rows == 0
    rows.add(Sample("a", b"", "ants"), np.zeros(2), bytes(32))
    rows.fail(Sample("b\n", b""), "bad")
    rows.add(Sample("c", b""), np.ones(2), bytes(32))
    assert (rows.n, rows.failures) == (3, [(1, r"b\n", "bad")])
    table = rows.table().to_pydict()
    assert (table["path"], table["number"]) == (["a", "c"], [0, 2])
    assert table["label"] == ["ants", None]
