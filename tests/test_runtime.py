"""ONNX Runtime in place of PyTorch: the same embeddings, or none."""

import sqlite3

import numpy as np
import pytest

from featuretl import ImageEmbedder, _runtime, extract, load_backbone
from featuretl.backbones import runtimes
from featuretl.exceptions import BackboneError, ParameterError

pytest.importorskip("onnxscript", reason="pip install 'featuretl[onnx]'")


def tiny(**output):
    return load_backbone("test_resnet", weights="random", **output)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture
def exports(monkeypatch):
    """How many models are exported."""
    made, export = [], runtimes._export
    monkeypatch.setattr(runtimes, "_export", lambda *args: made.append(args) or export(*args))
    return made


def test_the_default_backbone_gives_the_same_embeddings(photos):
    expected = extract(photos[::4], runtime="torch").to_numpy()
    found = extract(photos[::4], runtime="onnx")
    assert found.statistics.runtime == "onnx"
    assert cosines(expected, found.to_numpy()).min() > 0.99999
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("test_resnet", {"layers": [1, "pre_logits"], "normalize": True}),
        ("test_resnet", {"pooling": "gem"}),
        ("test_vit", {"pooling": "cls+avg"}),
        ("test_convnext", {}),
    ],
)
def test_layers_and_pooling_run_in_it_too(photos, name, output):
    backbone = load_backbone(name, weights="random", **output)
    expected = extract(photos[:3], backbone, runtime="torch").to_numpy()
    found = extract(photos[:3], backbone, runtime="onnx").to_numpy()
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
    foreign = runtimes._export(tiny(pooling="max").embedding, (3, 160, 160))
    model.write_bytes(foreign)
    found = extract(photos[14:16], tiny(), store=store, runtime="onnx").to_numpy()
    assert cosines(found, extract(photos[14:16], tiny()).to_numpy()).min() > 0.9999
    assert model.read_bytes() != foreign


def test_auto_is_pytorch_for_a_few_images(photos, store, exports):
    assert extract(photos, tiny(), store=store).statistics.runtime == "torch"
    assert not exports


@pytest.mark.parametrize("faster", ["torch", "onnx"])
def test_auto_measures_once_and_remembers(photos, store, monkeypatch, exports, faster):
    timed = []

    def seconds(runtime, batch):
        timed.append(runtime)
        return float((type(runtime).__name__ == "TorchRuntime") == (faster == "onnx"))

    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    monkeypatch.setattr(runtimes, "seconds_per_image", seconds)
    for start in (0, 4, 8):
        extraction = extract(photos[start : start + 4], tiny(), store=store)
        assert extraction.statistics.runtime == faster
    assert len(timed) == 2
    assert len(exports) == 1
    warm = extract(photos[:12], tiny(), store=store)
    assert warm.statistics.runtime == ""  # nothing was computed


def test_what_disagrees_is_not_used(photos, store, monkeypatch):
    call = runtimes.OnnxRuntime.__call__
    monkeypatch.setattr(
        runtimes.OnnxRuntime, "__call__", lambda self, x: call(self, x) * [[1, -1] * 48]
    )
    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    with pytest.raises(BackboneError, match="does not give the embeddings that PyTorch gives"):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny(), store=store).statistics.runtime == "torch"


def test_what_cannot_be_exported_runs_in_pytorch(photos, monkeypatch):
    def fail(*args):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(runtimes, "_export", fail)
    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    with pytest.raises(
        BackboneError, match=r"cannot run in ONNX Runtime \(no such operator\); use"
    ):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny()).statistics.runtime == "torch"


def test_without_onnx_installed(photos, monkeypatch):
    monkeypatch.setattr(runtimes, "has_onnx", lambda: False)
    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    with pytest.raises(BackboneError, match=r"needs onnxruntime, .*'featuretl\[onnx\]'"):
        extract(photos[:4], tiny(), runtime="onnx")
    assert extract(photos[:4], tiny()).statistics.runtime == "torch"


def test_unknown_runtimes_are_refused(photos):
    with pytest.raises(ParameterError, match="'runtime' parameter of ImageEmbedder must be one of"):
        ImageEmbedder(runtime="tensorrt").transform(photos[:1])


def test_a_memo_that_is_lost_costs_time_only(photos, store, monkeypatch, exports):
    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    extract(photos[:4], tiny(), store=store)
    (store.path / "memo.sqlite").unlink()
    extract(photos[4:8], tiny(), store=type(store)(store.path))
    assert len(exports) == 1
    assert sqlite3.connect(store.path / "memo.sqlite").execute("SELECT COUNT(*) FROM fact")


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


def test_bfloat16_does_not_run_in_onnx(photos, monkeypatch):
    monkeypatch.setattr(_runtime, "WORTH_MEASURING", 4)
    backbone = tiny(precision="bfloat16", normalize=True)
    with pytest.raises(BackboneError, match="runtime='onnx' computes in float32"):
        extract(photos[:4], backbone, runtime="onnx")
    extraction = extract(photos[:4], backbone)
    assert extraction.statistics.runtime == "torch"
    np.testing.assert_allclose(np.linalg.norm(extraction.to_numpy(), axis=1), 1, rtol=1e-6)


def test_unknown_precisions_are_refused():
    with pytest.raises(ParameterError, match="'precision' parameter of load_backbone must be one"):
        tiny(precision="int4")
