"""Downloads from the hub, through its unmodified client, in child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from hub_server import CUT, ERRORS, SLOW, STALLED, TORN, serve_hub
from timm.models import save_for_hf

CHILD = """
import json, os, resource, signal, sys, time, urllib.request
from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.exceptions import BackboneError

sys.stderr.isatty = lambda: True  # for progress bars
photos, store, done = json.loads(sys.argv[1]), EmbeddingStore(sys.argv[2]), {}

def step(name, backbone, **options):
    began, facts = time.perf_counter(), {}
    try:
        found = extract(photos, backbone, store=store, **options)
        facts["cached"], facts["rows"] = found.statistics.cached, found.to_numpy().tolist()
    except BackboneError as error:
        facts["error"] = str(error)
    done[name] = {**facts, "seconds": time.perf_counter() - began}

"""

ONLINE = """
import timm, torch  # for both processes
twin = os.fork()
step("first", "hf-hub:org/net")
if not twin:
    with open(sys.argv[2] + ".json", "w") as stream:
        json.dump(done["first"], stream)
    os._exit(0)
os.waitpid(twin, 0)
with open(sys.argv[2] + ".json") as stream:
    done["twin"] = json.load(stream)
step("plain name", "test_resnet.r160_in1k")
step("timm/", "timm/test_resnet.r160_in1k")
step("hf-hub:timm/", "hf_hub:timm/test_resnet.r160_in1k")
import huggingface_hub
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 2**16  # it resumes after whole chunks
for name in ("gated", "refused", "missing", "gone", "broken", "empty", "cut", "torn", "slow"):
    step(name, f"hf-hub:org/{name}")
for name in ("cut", "torn", "torn"):
    step(f"{name} again", f"hf-hub:org/{name}")
step("stalled", "hf-hub:org/stalled")
step("no such revision", "hf-hub:org/net@v9")
step("before", "hf-hub:org/moving@v1")
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/move/org/moving")
step("pinned", "hf-hub:org/moving@v1")
for file in ("config.json", "model.safetensors"):
    huggingface_hub.hf_hub_download("org/moving", file, revision="v1")
step("after", "hf-hub:org/moving@v1")
step("after again", "hf-hub:org/moving@v1")
step("old commit", "hf-hub:org/moving@" + os.environ["COMMIT"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as if the disk were full
try:
    load_backbone("hf-hub:org/large")
except BackboneError as error:
    done["full"] = {"error": str(error)}
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
step("room again", "hf-hub:org/large")
"""

OFFLINE = """
step("first", "hf-hub:org/net")
for name in ("gated", "broken"):
    step(name, f"hf-hub:org/{name}")
store = EmbeddingStore(sys.argv[2] + "-new")
step("new store", "hf-hub:org/net")
step("plain name", "test_resnet.r160_in1k")
"""


def child(
    code: str, photos: list[str], folder: Path, **environment: str
) -> tuple[dict[str, Any], str]:
    """Run code in a child process; return its results and what it wrote to stderr."""
    environment = {"HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1,localhost", **environment}
    environment |= {"HF_HUB_ETAG_TIMEOUT": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"}
    code = CHILD + code + "\nprint(json.dumps(done))"
    command = [sys.executable, "-c", code, json.dumps(photos), str(folder / "store")]
    environment = {**os.environ, **environment}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), run.stderr


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Exports of three networks with different weights, and an empty folder."""
    root = tmp_path_factory.mktemp("nets")
    folders = [root / name for name in ("a", "b", "c")]
    for folder in folders:
        model = timm.create_model("test_resnet")
        save_for_hf(model, str(folder), safe_serialization=True)
    (root / "empty").mkdir()
    return [*folders, root / "empty"]


@pytest.fixture(scope="module")
def runs(nets, photos, tmp_path_factory):
    """The results of a child process with a hub, and of one without it afterwards."""
    root = tmp_path_factory.mktemp("hub")
    net, other, large, empty = nets
    with serve_hub() as hub:
        hub.add("org/net", net, behaviour=SLOW)
        hub.add("timm/test_resnet.r160_in1k", net)
        for name in ERRORS:
            hub.add(f"org/{name}", net, behaviour=name)
        for name in (CUT, TORN, SLOW, STALLED):
            hub.add(f"org/{name}", net, behaviour=name)
        hub.add("org/empty", empty)
        hub.add("org/large", large)
        hub.add("org/moving", other, ref="v2")
        commit = hub.add("org/moving", net, ref="v1")
        settings = {"HF_ENDPOINT": hub.url, "COMMIT": commit}
        online, stderr = child(ONLINE, photos[:2], root, **settings)
    offline, _ = child(OFFLINE, photos[:2], root, HF_HUB_OFFLINE="1")
    return {"online": online, "offline": offline, "stderr": stderr, "hub": hub}


def test_a_download_shows_its_progress_on_stderr(runs):
    assert "model.safetensors" in runs["stderr"]
    assert "100%" in runs["stderr"]


def test_two_processes_download_at_once_and_agree(runs):
    assert runs["online"]["first"]["rows"] == runs["online"]["twin"]["rows"]


def test_offline_the_embeddings_are_the_same(runs):
    rows = runs["online"]["first"]["rows"]
    assert runs["offline"]["first"]["cached"] == 2
    for name in ("first", "new store", "plain name"):
        np.testing.assert_array_equal(runs["offline"][name]["rows"], rows)
    assert runs["offline"]["new store"]["cached"] == 0


def test_all_names_of_the_same_weights_share_their_embeddings(runs):
    for name in ("plain name", "timm/", "hf-hub:timm/"):
        assert runs["online"][name]["cached"] == 2, name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gated", ["/org/gated", "hf auth login", "HF_TOKEN"]),
        ("refused", ["/org/refused", "hf auth login", "HF_TOKEN"]),
        ("missing", ["no repository 'org/missing'"]),
        ("gone", ["no repository 'org/gone'"]),
        ("broken", ["503"]),
        ("empty", ["config.json"]),
        ("torn", ["hf-hub:org/torn"]),
        ("stalled", ["hf-hub:org/stalled"]),
        ("no such revision", ["'v9'"]),
        ("full", ["File too large"]),
    ],
)
def test_a_failure_is_one_sentence_within_seconds(runs, name, parts):
    done = runs["online"][name]
    assert "\n" not in done["error"]
    assert all(part in done["error"] for part in parts), done["error"]
    assert done.get("seconds", 0) < 10  # the client itself retries for 24 s


@pytest.mark.parametrize("name", ["gated", "broken"])
def test_offline_a_failure_is_one_sentence(runs, name):
    assert "HF_HUB_OFFLINE" in runs["offline"][name]["error"]


@pytest.mark.parametrize("name", ["cut again", "torn again", "slow"])
def test_an_interrupted_or_slow_download_is_completed(runs, name):
    np.testing.assert_array_equal(runs["online"][name]["rows"], runs["online"]["first"]["rows"])


def test_a_download_that_is_cut_off_is_resumed(runs):
    cut = runs["online"]["cut"]  # old versions of the client resume in the next run
    assert "org/cut" in runs["hub"].resumed if "rows" in cut else "\n" not in cut["error"]


def test_after_a_full_disk_the_download_succeeds(runs):
    assert runs["online"]["room again"]["cached"] == 0


def test_embeddings_of_old_weights_are_never_served_for_new_ones(runs):
    done = runs["online"]
    assert done["before"]["rows"] == done["pinned"]["rows"]  # the copy on this machine
    assert done["after"]["cached"] == 0
    assert not np.allclose(done["after"]["rows"], done["before"]["rows"])
    assert done["after again"]["rows"] == done["after"]["rows"]
    assert done["old commit"]["rows"] == done["before"]["rows"]
    assert done["old commit"]["cached"] == 2
