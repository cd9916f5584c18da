"""Quantized networks: another recipe, the same on every machine, refused if it loses too much."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from featuretl import extract, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError
from featuretl.runtimes import int8 as quantized


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("test_resnet", "random"),
        pytest.param("tf_efficientnet_lite0", "auto", marks=pytest.mark.slow),
    ],
)
def test_int8_is_another_recipe_is_kept_and_says_how_far_it_agrees(
    name, weights, cosines, photos, store, exports, monkeypatch
):
    monkeypatch.setitem(quantized.QUANTIZATION, "crops", 20)
    whole = load_sample_images().images
    single = extract(whole, load_backbone(name, weights=weights), store=store).to_numpy()
    backbone = load_backbone(name, weights=weights, precision="int8")
    found = extract(whole, backbone, store=store)
    assert (found.statistics.runtime, found.statistics.embedded) == ("onnx", 2)
    assert 0.95 < cosines(single, found.to_numpy()).min() < 1
    assert 0.9 < found.statistics.agreement < 1
    assert len(store.info()) == 2
    more = extract(
        photos[4:8], BackboneSpec.of("test", name, weights=weights, precision="int8"), store=store
    )
    assert more.statistics.embedded == 4
    assert len(store.info()) == 2
    assert len(exports) == 1  # the model was cached
    # In another store: quantized again, with the same result.
    again = load_backbone(name, weights=weights, precision="int8")
    fresh = extract(whole, again).to_numpy()
    np.testing.assert_array_equal(fresh, found.to_numpy())
    assert len(exports) == 2


def test_int8_runs_in_onnx_only(tiny, photos):
    with pytest.raises(BackboneError, match=r"precision='int8'.*runtime='onnx'"):
        extract(photos[:4], tiny(precision="int8"), runtime="torch")


def test_int8_needs_the_packages(tiny, photos, monkeypatch):
    monkeypatch.setattr(quantized, "_NEEDED", ("onnxruntime", "no_such_package"))
    with pytest.raises(BackboneError, match="precision='int8' needs: pip install onnxruntime"):
        extract(photos[:1], tiny(precision="int8"))


def test_a_network_that_loses_too_much_in_int8_is_refused(tiny, photos, monkeypatch):
    monkeypatch.setattr(quantized, "LEAST_COSINE", 1.1)
    monkeypatch.setitem(quantized.QUANTIZATION, "crops", 4)
    with pytest.raises(BackboneError, match=r"'test_resnet'.*precision='float32'"):
        extract(photos[:1], tiny(precision="int8"))


def test_crops_are_the_same_in_every_call(tiny):
    backbone = tiny()
    few, more = (quantized.photograph_crops(backbone, n) for n in (3, 6))
    for one, other in zip(few, more[:3], strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert len({np.asarray(crop).tobytes() for crop in more}) == 6


def test_int8_runs_on_the_cpu_only():
    spec, device = SimpleNamespace(name="any"), SimpleNamespace(type="cuda")
    with pytest.raises(BackboneError, match="device='cpu'"):
        quantized.load_int8(SimpleNamespace(spec=spec, device=device))


def test_a_damaged_file_is_replaced_by_the_same_network(tiny, tmp_path, exports, monkeypatch):
    monkeypatch.setitem(quantized.QUANTIZATION, "crops", 4)
    file, backbone = tmp_path / "model.onnx", tiny()
    batch = backbone.batch(quantized.photograph_crops(backbone, 2))
    expected = quantized.load_int8(backbone, file)(batch)
    np.testing.assert_array_equal(quantized.load_int8(backbone, file)(batch), expected)
    assert len(exports) == 1
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    np.testing.assert_array_equal(quantized.load_int8(backbone, file)(batch), expected)
    assert len(exports) == 2
    np.testing.assert_array_equal(quantized.load_int8(backbone, file)(batch), expected)
    assert len(exports) == 2
