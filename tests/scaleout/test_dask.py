"""Killing real Dask workers and the scheduler loses no shard and repeats almost none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dask
import joblib
import numpy as np
import pytest
from distributed import Client

from featuretl.exceptions import FeatureTLError, InputError, StoreError
from featuretl.images.sources import find_images
from featuretl.scaleout.extraction import ShardedExtraction, extract_shards

OPTIONS = {"runtime": "torch", "batch_size": 10, "images_per_shard": 20}


def rows_and_names(extraction: ShardedExtraction) -> tuple[np.ndarray, list[str], list[str]]:
    parts = list(extraction.shards())
    tables = [table for _, table, _ in parts]
    names = [name for table in tables for name in table.column("path").to_pylist()]
    labels = [label for table in tables for label in table.column("label").to_pylist()]
    return np.concatenate([rows for rows, _, _ in parts]), names, labels


def connected(cluster) -> Client:
    return Client(scheduler_file=cluster.address, set_as_default=False, timeout=30)


def test_after_a_worker_and_the_scheduler_are_killed_all_rows_are_there_once(
    doomed, cluster, many_photos: Path, expected: np.ndarray, tiny, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    killed = {}

    def kill(statistics) -> None:
        if statistics.embedded >= 100 and "worker" not in killed:
            killed["worker"] = next(iter(client.run(os.getpid).values()))
            os.kill(killed["worker"], signal.SIGKILL)
        if statistics.embedded >= 240 and "scheduler" not in killed:
            killed["scheduler"] = statistics.embedded
            doomed.scheduler.kill()

    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        client = connected(doomed)
        with joblib.parallel_config(backend="dask", client=client):
            with pytest.raises(FeatureTLError, match="scheduler was lost"):
                extract_shards(many_photos, tiny, store=store, progress=kill, **OPTIONS)
        client.close(timeout=1)
    doomed.end()
    assert killed.keys() == {"worker", "scheduler"}
    finished = {path.name for path in store.glob("spaces/*/shards/*")}
    assert 12 <= len(finished) < 20
    # Once each, except for at most two shards that the killed worker was embedding.
    assert len(doomed.keys()) <= len(set(doomed.keys())) + 40

    before = len(cluster.keys())
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        found = extract_shards(many_photos, tiny, store=store, **OPTIONS)
    assert found.statistics.cached == 20 * len(finished)
    assert found.statistics.embedded == 400 - 20 * len(finished) == len(cluster.keys()) - before
    images = find_images([many_photos])
    rows, names, labels = rows_and_names(found)
    assert names == images.paths
    assert labels == images.labels
    np.testing.assert_array_equal(rows, expected)


def test_an_image_that_kills_workers_is_named_and_the_others_are_kept(
    cluster, photos: list[str], tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(photos[:12]):
        data = Path(path).read_bytes() + (b"poison" if number == 5 else b"")
        (folder / f"{number:02d}.jpg").write_bytes(data)
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        found = extract_shards(
            folder,
            tiny,
            store=tmp_path / "store",
            on_error="nan",
            **{**OPTIONS, "images_per_shard": 4},
        )
    # A shard can be finished when its worker dies of another shard; it is not embedded again.
    assert found.statistics.embedded + found.statistics.cached == 11
    (failure,) = found.failures
    assert failure.name == str(folder / "05.jpg")
    assert failure.message == "decoding it ended the decoder's process (exit status 9)"
    _, names, _ = rows_and_names(found)
    assert names == [str(folder / f"{number:02d}.jpg") for number in range(12) if number != 5]


def test_what_workers_raise_is_one_sentence(cluster, photos, tiny, tmp_path: Path) -> None:
    bad = tmp_path / "broken.tar"
    bad.write_bytes(b"no tar at all" * 100)
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        with pytest.raises(InputError) as raised:
            extract_shards([*photos[:2], bad], tiny, store=tmp_path / "store", **OPTIONS)
        assert str(bad) in str(raised.value)
        assert str(raised.value).isprintable()
        file = tmp_path / "a file"
        file.touch()
        with pytest.raises(StoreError, match="cannot be read"):
            extract_shards(photos[:2], tiny, store=file / "store", **OPTIONS)
