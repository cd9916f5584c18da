"""Alternatives to eager PyTorch give the same embeddings or are not used."""

import dataclasses
import functools
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from featuretl import ImageEmbedder, extract, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError, ParameterError
from featuretl.ranking import time_backbone
from featuretl.runtimes import alternatives, choice
from featuretl.runtimes import int8 as quantized
from featuretl.runtimes.choice import ALTERNATIVES, RuntimeChoice

EXPORTED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not choice._has(ALTERNATIVES[name].packages[0]), reason=f"pip install {name}"
        ),
    )
    for name in ("onnx", "openvino")
]


def tiny(**output):
    return load_backbone("test_resnet", weights="random", **output)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def models():
    """The models exported by these tests, each exported only once."""
    return {}


@pytest.fixture(autouse=True)
def exports(monkeypatch, models):
    """The models exported by this test."""
    made, export = [], alternatives.export

    def export_once(module, size):
        made.append(module)
        name = module.model.pretrained_cfg["architecture"]
        key = (name, size, tuple(module.indices), module.pooling, module.normalize)
        if key not in models:
            models[key] = export(module, size)
        return models[key]

    monkeypatch.setattr(alternatives, "export", export_once)
    monkeypatch.setattr(quantized, "export", lambda *args: made.append(args) or export(*args))
    return made


@pytest.fixture
def worth(monkeypatch):
    """Set the least number of images for some alternatives; disable the others."""

    def set_(**least):
        for name in ALTERNATIVES:
            images = {"cpu": least[name]} if name in least else {}
            changed = dataclasses.replace(ALTERNATIVES[name], least_images=images)
            monkeypatch.setitem(ALTERNATIVES, name, changed)

    return set_


@pytest.fixture
def speeds(monkeypatch):
    """Replace measured speeds by given ones; return the list of measured runtimes."""
    asked = []

    def set_(**speed_of):
        def images_per_second(runtime, batch, pool, n_threads):
            asked.append(type(runtime).__name__)
            assert runtime(batch).shape == (len(batch), 96)
            return speed_of[type(runtime).__name__]

        monkeypatch.setattr(choice, "images_per_second", images_per_second)
        return asked

    return set_


@pytest.mark.parametrize("runtime", EXPORTED)
def test_the_default_backbone_gives_the_same_embeddings(photos, runtime):
    expected = extract(photos[::4], runtime="torch").to_numpy()
    found = extract(photos[::4], runtime=runtime)
    assert found.statistics.runtime == runtime
    assert cosines(expected, found.to_numpy()).min() > 0.99999
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("runtime", EXPORTED)
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("test_resnet", {"layers": [1, "pre_logits"], "normalize": True}),
        ("test_resnet", {"pooling": "gem"}),
        ("test_vit", {"pooling": "cls+avg"}),
        ("test_convnext", {}),
    ],
)
def test_layers_and_pooling_run_in_it_too(photos, runtime, name, output):
    backbone = load_backbone(name, weights="random", **output)
    expected = extract(photos[:3], backbone, runtime="torch").to_numpy()
    found = extract(photos[:3], backbone, runtime=runtime).to_numpy()
    assert cosines(expected, found).min() > 0.9999


def test_runtimes_share_one_recipe_and_the_model_is_kept(photos, store, exports):
    extract(photos[:4], tiny(), store=store, runtime="onnx")
    extract(photos[4:8], tiny(), store=store, runtime="onnx")
    assert len(exports) == 1
    extract(photos[8:12], tiny(), store=store, runtime="torch")
    (info,) = store.info()
    assert info.rows == 12
    (model,) = store.path.glob("models/*")
    model.write_bytes(b"torn")
    extract(photos[12:14], tiny(), store=store, runtime="onnx")
    assert len(exports) == 2
    assert model.stat().st_size > 1000
    foreign = alternatives.export(tiny(pooling="max").embedding, (3, 160, 160))
    model.write_bytes(foreign)
    found = extract(photos[14:16], tiny(), store=store, runtime="onnx").to_numpy()
    assert cosines(found, extract(photos[14:16], tiny()).to_numpy()).min() > 0.9999
    assert model.read_bytes() != foreign


def test_exported_runtimes_share_one_model(photos, store, exports):
    pytest.importorskip("openvino")
    for start, runtime in enumerate(("onnx", "openvino", "onnx")):
        extraction = extract(photos[start : start + 1], tiny(), store=store, runtime=runtime)
        assert extraction.statistics.runtime == runtime
    assert len(exports) == 1


def test_auto_is_pytorch_for_a_few_images(photos, store, exports):
    assert extract(photos, tiny(), store=store).statistics.runtime == "torch"
    assert not exports


@pytest.mark.parametrize("fastest", ["torch", "onnx"])
def test_auto_measures_once_and_remembers(photos, store, exports, worth, speeds, fastest):
    worth(onnx=4)
    asked = speeds(TorchRuntime=2.0, OnnxRuntime=3.0 if fastest == "onnx" else 1.0)
    for start in (0, 4, 8):
        extraction = extract(photos[start : start + 4], tiny(), store=store)
        assert extraction.statistics.runtime == fastest
    assert asked == ["TorchRuntime", "OnnxRuntime"]
    assert len(exports) == 1
    warm = extract(photos[:12], tiny(), store=store)
    assert warm.statistics.runtime == ""  # no embedding was computed
    extract(photos[:4], tiny(pooling="max"), store=store)
    assert len(asked) == 4  # another output is measured separately


def test_auto_measures_again_side_by_side_when_another_becomes_worth_it(
    photos, store, worth, speeds
):
    pytest.importorskip("openvino")
    asked = speeds(TorchRuntime=2.0, OnnxRuntime=3.0, OpenVinoRuntime=4.0)
    worth(onnx=4, openvino=8)
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "onnx"
    assert extract(photos[4:12], tiny(), store=store).statistics.runtime == "openvino"
    assert asked[:2] == ["TorchRuntime", "OnnxRuntime"]
    assert asked[2:] == ["TorchRuntime", "OnnxRuntime", "OpenVinoRuntime"]


def test_what_was_made_before_is_used_for_fewer_images(photos, store, worth, speeds):
    speeds(TorchRuntime=2.0, OnnxRuntime=3.0)
    worth(onnx=20)
    assert extract(photos[:20], tiny(), store=store).statistics.runtime == "onnx"
    assert extract(photos[20:21], tiny(), store=store).statistics.runtime == "torch"
    assert extract(photos[21:23], tiny(), store=store).statistics.runtime == "onnx"


def test_the_speed_is_measured_in_the_threads_that_will_embed():
    called = []
    with ThreadPoolExecutor(2, "featuretl") as pool:
        speed = choice.images_per_second(lambda batch: called.append(batch), [1, 2, 3], pool, 2)
    assert len(called) == 8  # two threads: one warm-up and three rounds
    assert speed > 0


def test_what_disagrees_is_not_used(photos, store, monkeypatch, worth):
    call = alternatives.OnnxRuntime.__call__
    monkeypatch.setattr(
        alternatives.OnnxRuntime, "__call__", lambda self, x: call(self, x) * [[1, -1] * 48]
    )
    worth(onnx=4)
    with pytest.raises(BackboneError, match=r"runtime='onnx' does not give"):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "torch"
    assert not list(store.path.glob("models/*"))


def test_what_cannot_be_exported_runs_in_pytorch(photos, store, monkeypatch, worth):
    tried = []

    def fail(*args):
        tried.append(args)
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(alternatives, "export", fail)
    worth(onnx=4)
    with pytest.raises(
        BackboneError, match=r"cannot run with runtime='onnx' \(no such operator\); use"
    ):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "torch"
    assert extract(photos[4:8], tiny(), store=store).statistics.runtime == "torch"
    assert len(tried) == 2  # the failure is cached


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_without_the_packages_installed(photos, monkeypatch, worth, runtime):
    monkeypatch.setattr(choice, "_has", lambda package: False)
    worth(onnx=4, openvino=4)
    with pytest.raises(
        BackboneError, match=rf"runtime='{runtime}' needs: pip install {runtime}.* onnx onnxscript"
    ):
        extract(photos[:4], tiny(), runtime=runtime)
    assert extract(photos[:4], tiny()).statistics.runtime == "torch"


def test_unknown_runtimes_are_refused(photos):
    with pytest.raises(ParameterError, match="'runtime' parameter of ImageEmbedder must be one of"):
        ImageEmbedder(runtime="tensorrt").transform(photos[:1])


def test_a_memo_that_is_lost_costs_time_only(photos, store, worth, exports):
    worth(onnx=4)
    extract(photos[:4], tiny(), store=store)
    (store.path / "memo.sqlite").unlink()
    extract(photos[4:8], tiny(), store=type(store)(store.path))
    assert len(exports) == 1
    assert sqlite3.connect(store.path / "memo.sqlite").execute("SELECT COUNT(*) FROM fact")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_gives_what_eager_pytorch_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # starts no processes
    module = Tiny().eval()
    runtime = alternatives.CompiledRuntime(module, torch.device("cpu"))
    batch = torch.rand((20, 3, 8, 8))
    with ThreadPoolExecutor(2) as pool:
        for rows in pool.map(runtime, [batch, batch]):
            np.testing.assert_allclose(rows, module(batch).numpy(), rtol=1e-4)


def test_every_runtime_is_timed_and_the_outcome_remembered(photos, store, monkeypatch, speeds):
    monkeypatch.delitem(ALTERNATIVES, "compile")
    monkeypatch.delitem(ALTERNATIVES, "openvino")
    speeds(TorchRuntime=2.0, OnnxRuntime=3.0)
    speed = time_backbone(tiny(), store=store)
    assert speed.images_per_second == {"torch": 2.0, "onnx": 3.0}
    assert (speed.name, speed.fastest) == ("test_resnet", "onnx")
    choice = functools.partial(RuntimeChoice, tiny(), store)
    with ThreadPoolExecutor(1) as pool:
        here = choice(pool, joblib.cpu_count())
        assert here.choose("auto", 100)[0] == "onnx"
        assert here.choose("auto", 99)[0] == "torch"


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("kernel", torch.randn((5, 3, 3, 3), generator=generator))

    def forward(self, batch):
        return torch.nn.functional.conv2d(batch, self.kernel).relu().mean((2, 3))


def test_compiled_pads_to_one_size(monkeypatch):
    shapes = []
    monkeypatch.setattr(torch, "compile", lambda module, **_: Watched(module, shapes))
    runtime = alternatives.CompiledRuntime(Tiny(), torch.device("cpu"))
    batch = torch.rand((37, 3, 8, 8))
    np.testing.assert_allclose(runtime(batch), Tiny()(batch).numpy(), rtol=1e-5)
    assert shapes == [16, 16, 16]


def test_compiled_halves_its_batches_where_memory_does_not_suffice(monkeypatch):
    shapes = []
    monkeypatch.setattr(torch, "compile", lambda module, **_: Watched(module, shapes, most=4))
    runtime = alternatives.CompiledRuntime(Tiny(), torch.device("cpu"))
    batch = torch.rand((6, 3, 8, 8))
    for _ in range(2):
        np.testing.assert_allclose(runtime(batch), Tiny()(batch).numpy(), rtol=1e-5)
    assert shapes == [16, 8, 4, 4, 4, 4]


class Watched(torch.nn.Module):
    """A module that records batch sizes and has memory for `most` images."""

    def __init__(self, module, shapes, most=10**9):
        super().__init__()
        self.module, self.shapes, self.most = module, shapes, most

    def forward(self, batch):
        self.shapes.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return self.module(batch)


# precision


def test_bfloat16_is_another_recipe_and_says_how_far_it_agrees(photos, store):
    single = extract(photos[:4], tiny(), store=store)
    half = extract(photos[:4], tiny(precision="bfloat16"), store=store)
    assert half.statistics.embedded == 4
    assert len(store.info()) == 2
    rows = half.to_numpy()
    assert rows.dtype == np.float32
    agreement = cosines(single.to_numpy(), rows).min()
    assert 0.98 < agreement < 1
    assert abs(half.statistics.agreement - agreement) < 0.01
    assert single.statistics.agreement is None


def test_bfloat16_does_not_run_in_onnx(photos, worth):
    worth(onnx=4)
    backbone = tiny(precision="bfloat16", normalize=True)
    with pytest.raises(BackboneError, match="runtime='onnx' computes in float32"):
        extract(photos[:4], backbone, runtime="onnx")
    extraction = extract(photos[:4], backbone)
    assert extraction.statistics.runtime == "torch"
    np.testing.assert_allclose(np.linalg.norm(extraction.to_numpy(), axis=1), 1, rtol=1e-6)


def test_auto_is_float32(photos, store):
    expected = extract(photos[:4], tiny(precision="float32"), store=store)
    found = extract(photos[:4], tiny(), store=store)
    assert (expected.statistics.embedded, found.statistics.embedded) == (4, 0)


def test_int8_is_another_recipe_is_kept_and_says_how_far_it_agrees(
    photos, store, exports, monkeypatch
):
    monkeypatch.setitem(quantized.QUANTIZATION, "crops", 20)
    whole = load_sample_images().images
    single = extract(whole, store=store).to_numpy()
    backbone = load_backbone(precision="int8")
    found = extract(whole, backbone, store=store)
    assert (found.statistics.runtime, found.statistics.embedded) == ("onnx", 2)
    assert 0.95 < cosines(single, found.to_numpy()).min() < 1
    assert 0.9 < found.statistics.agreement < 1
    assert len(store.info()) == 2
    more = extract(
        photos[4:8], BackboneSpec.of("test", backbone.spec.name, precision="int8"), store=store
    )
    assert more.statistics.embedded == 4
    assert len(store.info()) == 2
    assert len(exports) == 1  # the model was cached
    again = load_backbone(
        precision="int8"
    )  # in another store: quantized again, with the same result
    fresh = extract(whole, again).to_numpy()
    np.testing.assert_array_equal(fresh, found.to_numpy())
    assert len(exports) == 2


def test_int8_runs_in_onnx_only(photos):
    with pytest.raises(BackboneError, match="precision='int8' runs with runtime='onnx' only"):
        extract(photos[:4], tiny(precision="int8"), runtime="torch")


def test_int8_needs_the_packages(photos, monkeypatch):
    monkeypatch.setattr(quantized, "_NEEDED", ("onnxruntime", "no_such_package"))
    with pytest.raises(BackboneError, match="precision='int8' needs: pip install onnxruntime"):
        extract(photos[:1], tiny(precision="int8"))


def test_a_network_that_loses_too_much_in_int8_is_refused(photos, monkeypatch):
    monkeypatch.setattr(quantized, "LEAST_COSINE", 1.1)
    monkeypatch.setitem(quantized.QUANTIZATION, "crops", 4)
    with pytest.raises(BackboneError, match=r"'test_resnet'.*precision='float32'"):
        extract(photos[:1], tiny(precision="int8"))


def test_unknown_precisions_are_refused():
    with pytest.raises(ParameterError, match="'precision' parameter of load_backbone must be one"):
        tiny(precision="int4")
