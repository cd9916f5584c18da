"""A few new images are embedded without PyTorch, to the same embeddings."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from featuretl import Backbone, ImageEmbedder, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import StoreError
from featuretl.runtimes import graph
from featuretl.runtimes.choice import least_cosine
from featuretl.runtimes.graph import find_graph, is_on_cpu

DEFAULT = BackboneSpec.of("test", "tf_efficientnet_lite0")
TINY = {"backbone": "test_resnet", "weights": "random"}

# Embeds in a process that has not imported PyTorch.
CHILD = """
import json, sys
import numpy as np
from featuretl import ImageEmbedder
paths, options = json.loads(sys.argv[1])
found = ImageEmbedder(**options).extract(paths)
np.save(sys.argv[2], found.to_numpy())
heavy = sorted({"torch", "timm"} & set(sys.modules))
print(json.dumps([heavy, found.statistics.runtime, found.statistics.embedded]))
"""


@pytest.fixture
def in_child(tmp_path):
    """Return a function that embeds in another process: rows, slow imports, runtime, number."""

    def embed(paths, **options):
        given, rows = json.dumps([list(map(str, paths)), options]), tmp_path / "rows.npy"
        command = [sys.executable, "-c", CHILD, given, str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return np.load(rows), *json.loads(done.stdout)

    return embed


def in_pytorch(paths, **options):
    """Embed with PyTorch; a new space, of which the store would warn, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder = ImageEmbedder(runtime="torch", device="cpu", **options)
        found = embedder.extract(paths)
    return found.to_numpy(), found.statistics.embedded


def test_the_default_backbone_needs_no_pytorch(photos, tmp_path, in_child):
    expected, _ = in_pytorch(photos, cache=None)
    cache = str(tmp_path / "cache")
    few, *facts = in_child(photos[:4], cache=cache)
    assert facts == [[], "onnx", 4]
    more, *facts = in_child(photos, cache=cache)
    assert facts == [[], "onnx", len(photos) - 4]
    np.testing.assert_array_equal(more[:4], few)
    assert least_cosine(expected, more) > 0.9999
    again, embedded = in_pytorch(photos, cache=cache)
    assert embedded == 0
    np.testing.assert_array_equal(again, more)
    without, *facts = in_child(photos[:4], cache=None)
    assert facts == [[], "onnx", 4]
    np.testing.assert_array_equal(without, few)


def test_a_kept_graph_of_another_network_needs_no_pytorch(photos, tmp_path, in_child):
    options = {**TINY, "cache": str(tmp_path / "cache")}
    expected, _ = in_pytorch(photos, **TINY, cache=None)
    in_pytorch(photos[:2], **options)
    _, *facts = in_child(photos[2:4], **options)
    assert facts == [["timm", "torch"], "torch", 2]  # there is no graph
    ImageEmbedder(**options, runtime="onnx").fit_transform(photos[4:6])  # keeps one
    found, *facts = in_child(photos, **options)
    assert facts == [[], "onnx", len(photos) - 6]
    assert least_cosine(expected, found) > 0.9999


def test_a_graph_that_disagrees_or_is_damaged_is_not_used(photos, tmp_path, in_child):
    cache = tmp_path / "cache"
    expected, *_ = in_child(photos[:4], cache=str(cache))
    (file,) = cache.glob("models/*.onnx")
    intact = file.read_bytes()
    middle = len(intact) // 2
    other_weights = intact[:middle] + b"\0\0\x80\x3f" * 1000 + intact[middle + 4000 :]
    for number, damaged in enumerate((b"", intact[:-9], other_weights)):
        file.write_bytes(damaged)
        found, *facts = in_child(photos[: 5 + number], cache=str(cache))
        assert facts == [[], "onnx", 1]  # the packaged network's graph was built again
        np.testing.assert_array_equal(found[:4], expected)
        assert file.read_bytes() == intact


def test_what_pillow_cannot_resize_alone_is_resized_by_timm(tmp_path, in_child):
    shapes = [(1, 1), (3, 500), (500, 3), (100, 90), (224, 256), (1200, 90)]
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    expected, _ = in_pytorch(paths, cache=None)
    found, *_ = in_child(paths, cache=None)
    assert least_cosine(expected, found) > 0.9999


@pytest.mark.parametrize("changes", [{"precision": "int8"}, {"views": 2}, {"in_chans": 5}])
def test_other_specs_have_no_graph(changes):
    assert find_graph(BackboneSpec.of("test", DEFAULT.name, **changes), None, None) is None


def test_a_network_of_ones_own_has_no_graph(pixels):
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    backbone = Backbone.of(module, lambda image: torch.ones(3, 8, 8), "own")
    recipe = {"version": 1, "decode": {}, **backbone.recipe}
    assert find_graph(backbone.spec, None, recipe) is None


def test_a_space_that_cannot_be_read_leaves_the_images_to_pytorch(store, monkeypatch):
    def fail(recipe):
        raise StoreError("unreadable")

    monkeypatch.setattr(store, "golden", fail)
    recipe = {"version": 1, "decode": {}, **load_backbone(device="cpu").recipe}
    assert find_graph(DEFAULT, store, recipe) is None


def test_without_onnx_runtime_there_is_no_graph(monkeypatch):
    assert find_graph(DEFAULT, None, None) is not None
    monkeypatch.setattr(graph, "onnx_is_installed", lambda: False)
    assert find_graph(DEFAULT, None, None) is None


@pytest.mark.parametrize(
    ("build", "platform", "machine", "files", "on_cpu"),
    [
        ("2.14.1+cpu", "linux", "x86_64", ["/dev/nvidiactl"], True),
        ("2.14.1", "linux", "x86_64", [], True),
        ("2.14.1", "linux", "x86_64", ["/dev/nvidiactl"], False),
        ("2.14.1+cu130", "linux", "x86_64", ["/dev/dxg"], False),
        ("2.14.1+rocm7", "linux", "x86_64", [], False),
        ("2.14.1+xpu", "linux", "x86_64", [], False),
        ("2.14.1", "darwin", "arm64", [], False),
        ("2.2.2", "darwin", "x86_64", [], True),
        ("2.14.1", "win32", "AMD64", [], True),
        ("2.14.1+cu130", "win32", "AMD64", [], False),
    ],
)
def test_where_an_accelerator_may_be_pytorch_decides(
    monkeypatch, build, platform, machine, files, on_cpu
):
    monkeypatch.setattr(graph, "version", lambda package: build)
    monkeypatch.setattr(graph.sys, "platform", platform)
    monkeypatch.setattr(graph.platform, "machine", lambda: machine)
    monkeypatch.setattr(graph.os.path, "exists", lambda path: path in files)
    assert is_on_cpu("auto") is on_cpu


def test_a_named_device_is_taken_at_its_word():
    assert is_on_cpu("cpu")
    assert not any(map(is_on_cpu, ["cuda", "cuda:1", "mps", ["cpu", "cpu"], None]))
