"""The runtime is chosen by agreement and measured speed; the choice is remembered."""

import dataclasses
import functools
import sqlite3
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import joblib
import numpy as np
import pytest
import torch

from featuretl import ImageEmbedder, extract, load_backbone
from featuretl.exceptions import BackboneError, ParameterError
from featuretl.ranking import time_backbone
from featuretl.runtimes import alternatives, choice, onnx
from featuretl.runtimes.choice import ALTERNATIVES, RuntimeChoice, model_file
from featuretl.store import EmbeddingStore


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


def test_runtimes_share_one_recipe_and_the_model_is_kept(cosines, tiny, photos, store, exports):
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


def test_exported_runtimes_share_one_model(tiny, photos, store, exports):
    pytest.importorskip("openvino")
    for start, runtime in enumerate(("onnx", "openvino", "onnx")):
        extraction = extract(photos[start : start + 1], tiny(), store=store, runtime=runtime)
        assert extraction.statistics.runtime == runtime
    assert len(exports) == 1


def test_auto_is_pytorch_for_a_few_images(tiny, photos, store, exports):
    assert extract(photos, tiny(), store=store).statistics.runtime == "torch"
    assert not exports


def test_auto_is_onnx_runtime_for_a_few_images_if_it_needs_no_export(tiny, photos, store, exports):
    images = photos + list(np.random.default_rng(0).integers(0, 256, (3, 200, 200, 3), np.uint8))
    default = load_backbone(device="cpu")
    assert extract(photos, default).statistics.runtime == "torch"  # 24 are too few
    assert extract(images, default).statistics.runtime == "onnx"
    assert not exports
    assert extract(images, tiny()).statistics.runtime == "torch"
    extract(images[:1], tiny(), store=store, runtime="onnx")
    assert extract(images, tiny(), store=store).statistics.runtime == "onnx"


@pytest.mark.parametrize("fastest", ["torch", "onnx"])
def test_auto_measures_once_and_remembers(tiny, photos, store, exports, worth, speeds, fastest):
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
    tiny, photos, store, worth, speeds
):
    pytest.importorskip("openvino")
    asked = speeds(TorchRuntime=2.0, OnnxRuntime=3.0, OpenVinoRuntime=4.0)
    worth(onnx=4, openvino=8)
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "onnx"
    assert extract(photos[4:12], tiny(), store=store).statistics.runtime == "openvino"
    assert asked[:2] == ["TorchRuntime", "OnnxRuntime"]
    assert asked[2:] == ["TorchRuntime", "OnnxRuntime", "OpenVinoRuntime"]


def test_what_was_made_before_is_used_for_fewer_images(tiny, photos, store, worth, speeds):
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


def test_what_disagrees_is_not_used(tiny, photos, store, monkeypatch, worth):
    call = onnx.OnnxRuntime.__call__
    monkeypatch.setattr(
        onnx.OnnxRuntime, "__call__", lambda self, x: call(self, x) * [[1, -1] * 48]
    )
    worth(onnx=4)
    with pytest.raises(BackboneError, match=r"runtime='onnx' does not give"):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "torch"
    assert not list(store.path.glob("models/*"))


def test_what_cannot_be_exported_runs_in_pytorch(tiny, photos, store, monkeypatch, worth):
    tried = []

    def fail(*args):
        tried.append(args)
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(alternatives, "export", fail)
    worth(onnx=4)
    with pytest.raises(BackboneError, match=r"runtime='onnx' \(no such operator\)"):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "torch"
    assert extract(photos[4:8], tiny(), store=store).statistics.runtime == "torch"
    assert len(tried) == 2  # the failure is cached


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_without_the_packages_installed(tiny, photos, monkeypatch, worth, runtime):
    monkeypatch.setattr(choice, "_has", lambda package: False)
    worth(onnx=4, openvino=4)
    with pytest.raises(
        BackboneError, match=rf"runtime='{runtime}' needs: pip install {runtime}.* onnx onnxscript"
    ):
        extract(photos[:4], tiny(), runtime=runtime)
    assert extract(photos[:4], tiny()).statistics.runtime == "torch"


def test_unknown_runtimes_are_refused(photos):
    with pytest.raises(ParameterError, match="'runtime' parameter of ImageEmbedder"):
        ImageEmbedder(runtime="tensorrt").transform(photos[:1])


def test_a_memo_that_is_lost_costs_time_only(tiny, photos, store, worth, exports):
    worth(onnx=4)
    extract(photos[:4], tiny(), store=store)
    (store.path / "memo.sqlite").unlink()
    extract(photos[4:8], tiny(), store=type(store)(store.path))
    assert len(exports) == 1
    with closing(sqlite3.connect(store.path / "memo.sqlite")) as db:
        assert db.execute("SELECT COUNT(*) FROM fact")


def test_every_runtime_is_timed_and_the_outcome_remembered(
    tiny, photos, store, monkeypatch, speeds
):
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


def test_bfloat16_is_another_recipe_and_says_how_far_it_agrees(cosines, tiny, photos, store):
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


def test_bfloat16_does_not_run_in_onnx(tiny, photos, worth):
    worth(onnx=4)
    backbone = tiny(precision="bfloat16", normalize=True)
    with pytest.raises(BackboneError, match="runtime='onnx' computes in float32"):
        extract(photos[:4], backbone, runtime="onnx")
    extraction = extract(photos[:4], backbone)
    assert extraction.statistics.runtime == "torch"
    np.testing.assert_allclose(np.linalg.norm(extraction.to_numpy(), axis=1), 1, rtol=1e-6)


@pytest.fixture
def openvino():
    """OpenVINO, where it is installed and the processor has instructions for bfloat16."""
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("the processor has no instructions for bfloat16")
    return openvino


@pytest.mark.parametrize("output", [{}, {"normalize": True}, {"layers": [1], "pooling": "avg+max"}])
def test_openvino_computes_bfloat16_with_the_recipe_of_pytorch(
    openvino, cosines, tiny, photos, store, exports, output
):
    backbone = tiny(precision="bfloat16", **output)
    single = extract(photos[:4], tiny(**output), store=store, runtime="openvino").to_numpy()
    found = extract(photos[:4], backbone, store=store, runtime="openvino")
    assert (found.statistics.runtime, found.statistics.embedded) == ("openvino", 4)
    assert len(exports) == len(list(store.path.glob("models/*"))) == 1  # float32 has the same graph
    expected = extract(photos[:4], backbone, store=None, runtime="torch")
    assert cosines(found.to_numpy(), expected.to_numpy()).min() > 0.9999
    assert cosines(found.to_numpy(), single).min() < 0.999999  # it is not float32
    assert abs(found.statistics.agreement - expected.statistics.agreement) < 0.001
    if output.get("normalize"):
        np.testing.assert_allclose(np.linalg.norm(found.to_numpy(), axis=1), 1, rtol=1e-6)
    again = extract(photos[:4], backbone, store=store, runtime="torch")
    assert again.statistics.cached == 4


def test_auto_takes_openvino_for_bfloat16_if_it_is_faster(
    openvino, tiny, photos, store, worth, speeds
):
    asked = speeds(TorchRuntime=2.0, OpenVinoRuntime=3.0)
    worth(onnx=4, openvino=4)
    backbone = tiny(precision="bfloat16")
    assert extract(photos[:4], backbone, store=store).statistics.runtime == "openvino"
    assert asked == ["TorchRuntime", "OpenVinoRuntime"]


def test_openvino_refuses_bfloat16_without_the_instructions(tiny, photos, monkeypatch, worth):
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *args: ["FP32"])
    backbone = tiny(precision="bfloat16")
    with pytest.raises(BackboneError, match=r"no instructions for bfloat16\); use runtime='torch'"):
        extract(photos[:1], backbone, runtime="openvino")
    worth(openvino=4)
    assert extract(photos[:4], backbone).statistics.runtime == "torch"


def test_auto_is_float32(tiny, photos, store):
    expected = extract(photos[:4], tiny(precision="float32"), store=store)
    found = extract(photos[:4], tiny(), store=store)
    assert (expected.statistics.embedded, found.statistics.embedded) == (4, 0)


def test_unknown_precisions_are_refused(tiny):
    with pytest.raises(ParameterError, match="'precision' parameter of load_backbone"):
        tiny(precision="int4")


def test_embeddings_that_are_not_finite_or_of_another_size_disagree():
    rows = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    assert choice.agree(rows, 2 * rows)  # the cosine is 1
    assert not choice.agree(rows, rows[:, :7])
    broken = rows.copy()
    broken[3, 2] = np.inf
    assert choice.least_cosine(rows, broken) == -1
    turned = rows.copy()
    turned[1] *= -1  # the least row counts
    assert choice.least_cosine(rows, turned) == pytest.approx(-1)
    assert not choice.agree(rows, turned)


def test_speeds_on_a_device_are_remembered_apart_from_those_of_the_cpu():
    def key(device):
        spec = types.SimpleNamespace(name="a")
        device = torch.device(device)
        backbone = types.SimpleNamespace(recipe={}, spec=spec, device=device, forward=None)
        return RuntimeChoice(backbone, None, None, 2)._key()

    assert len({key("cpu"), key("cuda:0"), key("cuda:1")}) == 3


def test_a_model_of_the_default_store_serves_every_store(cache, tmp_path):
    recipe, store = {"backbone": "x"}, EmbeddingStore(tmp_path / "other")
    own = model_file(recipe, store)
    assert own.parent == store.path / "models" and not cache.exists()
    known = model_file(recipe, EmbeddingStore(cache))
    assert known.parent == cache / "models"
    known.parent.mkdir(parents=True)
    known.write_bytes(b"model")
    assert model_file(recipe, store) == known
    own.parent.mkdir(parents=True)
    own.write_bytes(b"model")
    assert model_file(recipe, store) == own
    assert model_file(recipe, None) is None
