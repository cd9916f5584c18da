"""``featuretl extract --engine``: worker processes make the same embeddings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli

from featuretl import extract
from featuretl.backbones import devices
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ParameterError
from featuretl.scaleout.cluster import dask_workers

TINY = ["--backbone", "test_resnet", "--weights", "random", "--runtime", "torch"]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["extract", *map(str, arguments)])
    return result.exit_code, result.output if result.exit_code else result.stdout


def test_a_folder_in_shards_to_files(photo_folder, photos, cache, tmp_path, monkeypatch):
    # The files may be seconds old.
    monkeypatch.setattr("featuretl.images.shards.RACY_NS", -(10**18))
    # With one worker, this process embeds the images.
    command = [photo_folder, *TINY, "--engine", "loky", "--workers", 1, "--images-per-shard", 10]
    code, output = run(*command, "-o", tmp_path / "out", "--json")
    facts = json.loads(output)
    assert code == 0
    assert (facts["embedded"], facts["shards"], facts["engine"]) == (24, 3, "loky")
    assert facts["store"] == str(cache / "shared")
    spec = BackboneSpec.of("test", "test_resnet", weights="random")
    expected = extract(photos, spec, runtime="torch").to_numpy()
    found = [np.load(path) for path in sorted((tmp_path / "out" / "img_emb").iterdir())]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5, atol=1e-6)
    code, output = run(*command, "--profile")
    assert code == 0
    assert "cached         24" in output
    assert "No image was read" in output


@pytest.mark.slow
def test_dask_workers_embed(photo_folder, tmp_path):
    code, output = run(
        photo_folder, *TINY, "--engine", "dask", "--workers", 1, "--store", tmp_path, "--json"
    )
    assert code == 0, output
    assert json.loads(output)["embedded"] == 24


def test_bad_images_and_shards_are_told(photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    (tmp_path / "broken.tar").write_bytes(b"x" * 2000)
    command = [photos[0], bad, tmp_path / "broken.tar", *TINY, "--engine", "loky", "--workers", 1]
    code, output = run(*command, "-o", tmp_path / "out.parquet")
    assert code == 1
    assert "2 images or shards without an embedding" in output
    assert not (tmp_path / "out.parquet").exists()
    code, output = run(*command, "-o", tmp_path / "out.parquet", "--on-error", "skip", "--json")
    assert code == 0
    failed = {Path(one["path"]).name for one in json.loads(output)["failures"]}
    assert failed == {"bad.jpg", "broken.tar"}
    assert (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store", "x"], "--store requires --engine loky or dask"),
        (["--engine", "loky", "--scheduler", "tcp://x:1"], "--scheduler requires --engine dask"),
        (["--engine", "loky", "--cache", "x"], "--cache and --no-cache require --engine threads"),
        (["--engine", "loky", "--on-error", "nan"], "--on-error nan requires --engine threads"),
        (["--engine", "dask", "--scheduler", "tcp://x:1"], "--scheduler requires --store"),
        (["--engine", "loky", "-o", "x.npy"], ".parquet"),
        (["--engine", "loky", "--label-column", "x"], "--label-column"),
    ],
)
def test_options_that_do_not_go_together(photo_folder, options, message):
    code, output = run(photo_folder, *options)
    assert code in (1, 2)
    assert message in output


def test_each_dask_worker_has_gpus_of_its_own(monkeypatch):
    monkeypatch.setattr(devices, "count_gpus", lambda: 4)
    with dask_workers(gpu_per_worker=2) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert sorted(seen.values()) == ["0,1", "2,3"]
        assert [worker["resources"] for worker in workers] == [{"GPU": 2}] * 2
        assert [worker["nthreads"] for worker in workers] == [1, 1]
    with pytest.raises(ParameterError, match="4 GPUs"):
        with dask_workers(workers=3, gpu_per_worker=2):
            pass
