"""benchmarks/gpu.py measures everything on a CPU, with tiny sizes, and records what fails."""

import importlib
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_the_rehearsal_measures_everything(tmp_path):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device=cpu", "--rehearse"]
    done = subprocess.run([*command, "-o", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "gpu.json").read_text())
    entries = content["measurements"].values()
    problems = {k: v for k, v in content["measurements"].items() if not v["runs"]}
    assert not problems
    fields = {
        "machine": {"torch", "timm", "pillow", "featuretl", "cuda", "cudnn", "cores"},
        "ceiling": {"images_per_second", "batch", "peak_device_mib", "by_batch"},
        "agreement": {"least_cosine", "mean_cosine"},
        "decoding": {"images_per_second", "cores_busy"},
        "extraction": {"images_per_second", "cores_busy", "device_busy", "core_seconds"},
        "shards": {"images_per_second", "core_seconds"},
        "heads": {"fit_seconds", "search_seconds"},
        "fine-tuning": {"seconds", "epoch_seconds"},
        "usual loop": {"images_per_second"},
        "timm loader": {"images_per_second"},
    }
    assert {entry["kind"] for entry in entries} == set(fields)
    for entry in entries:
        assert fields[entry["kind"]] <= set(entry["runs"][0])
    text = (tmp_path / "gpu.md").read_text()
    assert "usual loop" in text
    assert "## Failed or skipped\n\nNone." in text


def test_what_fails_or_does_not_fit_is_recorded_and_made_up_for(gpu, tmp_path):
    measurement = gpu.Measurement
    todo = [
        measurement("fails", "agreement", {"kind": "a"}, {}, 1.0),
        measurement("long", "machine", {"kind": "b"}, {"device": "cpu"}, 1000.0),
        measurement("works", "machine", {"kind": "machine"}, {"device": "cpu"}, 30.0),
    ]
    settings = {"device": "cpu", "rehearse": True}
    results = gpu.Results.open(tmp_path, settings)
    gpu.measure(results, todo, gpu.time.monotonic() + 300)
    found = json.loads((tmp_path / "gpu.json").read_text())["measurements"]
    assert found["fails"]["error"].startswith("TypeError: agreement() missing")
    assert found["long"]["skipped"].startswith("needs about 1000 s")
    assert found["works"]["runs"][0]["torch"]
    again = gpu.Results.open(tmp_path, settings)
    assert [again.lacks(one) for one in todo] == [True, True, False]
    assert "needs about 1000 s" in (tmp_path / "gpu.md").read_text()
    with pytest.raises(gpu.click.ClickException, match="other settings"):
        gpu.Results.open(tmp_path, {"device": "cuda", "rehearse": False})


def test_a_measurement_that_takes_too_long_ends_with_its_process(gpu, tmp_path):
    child = gpu.Child(tmp_path / "log")
    answer = child.ask({"kind": "machine", "device": "cpu"}, 0.01)
    assert answer == {"error": "took more than 0 s and was ended"}
    child.close()


def test_the_plan_of_a_gpu_is_ordered_and_its_names_are_networks(gpu):
    import timm

    paths = {kind: ["x"] for kind in ("files", "big", "tars")}
    plan = gpu.plan(gpu.full(), paths, "cuda")
    assert len({(one.id, one.round) for one in plan}) == len(plan)
    names = {one.facts["network"].partition("@")[0] for one in plan if "network" in one.facts}
    assert all(map(timm.is_model, names))
    assert [one.kind for one in plan[:3]] == ["machine", "extraction", "usual loop"]


def test_the_share_that_the_device_is_busy_comes_from_the_driver(gpu, tmp_path, monkeypatch):
    measure = importlib.import_module("gpu_device")
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "$@" > "$0.seen"\nwhile :; do echo 50; sleep 0.02; done\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(
        measure.torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="1-2")
    )
    with measure.Busy("cuda") as busy:
        time.sleep(0.2)
    assert (busy.method, busy.share) == ("nvidia-smi", 0.5)
    seen = Path(f"{smi}.seen").read_text().split()
    assert seen[0] == "--id=GPU-1-2"
    assert seen[-1] == "--loop-ms=100"
