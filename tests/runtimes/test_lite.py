"""The graphs of the packaged networks give the embeddings of timm's networks, without PyTorch."""

import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from featuretl import load_backbone
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.spec import BackboneSpec
from featuretl.images.decode import golden_pixels
from featuretl.runtimes import lite
from featuretl.runtimes.choice import least_cosine, probe
from featuretl.runtimes.lite import has_lite_golden, lite_graph, lite_recipe, read_tensors
from featuretl.runtimes.onnx import OnnxRuntime

NAMES = [name for name in PACKAGED if name.startswith("tf_") and packaged_file(name)]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_and_embeddings_are_those_of_timms_network(name):
    backbone = load_backbone(name, device="cpu")
    assert lite_recipe(backbone.spec) == backbone.recipe
    batch = probe(backbone)
    expected, found = backbone.forward(batch), OnnxRuntime(lite_graph(name))(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert least_cosine(expected, found) > 0.999999
    golden = backbone.embed([backbone.prepare(golden_pixels())])
    assert has_lite_golden(name, golden)
    assert not has_lite_golden(name, golden[:, ::-1])
    assert not has_lite_golden(name, golden * np.nan)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "mobilenetv2_100"},
        {"weights": "random"},
        {"layers": (-1,)},
        {"pooling": "max"},
        {"normalize": True},
        {"precision": "int8"},
        {"views": 2},
        {"image_size": (192, 192)},
        {"crop_pct": 1.0},
        {"in_chans": 1},
    ],
)
def test_every_other_spec_has_no_graph_of_its_own(changes):
    spec = BackboneSpec.of("test", **{"backbone": changes.pop("name", NAMES[0]), **changes})
    assert lite_recipe(spec) is None


def test_changed_weights_are_refused(monkeypatch, tmp_path):
    content = packaged_file(NAMES[0]).read_bytes()
    changed = tmp_path / "weights.pth"
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(lite, "packaged_file", lambda name: changed)
    with pytest.raises(ValueError, match="not the published ones"):
        lite_graph(NAMES[0])


def legacy(state):
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def test_tensors_are_read_as_pytorch_reads_them():
    whole = torch.arange(24.0).reshape(2, 3, 4)
    state = OrderedDict(
        a=whole, b=whole.permute(2, 0, 1), c=whole[1:, :, ::2], n=torch.tensor(7), e=torch.empty(0)
    )
    found = read_tensors(legacy(state))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype


class Harmful:
    def __reduce__(self):
        return open, ("harmed", "w")


def test_nothing_that_a_file_names_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Harmful()), legacy({"a": Harmful()})):
        with pytest.raises(pickle.UnpicklingError, match="not a part of a state dict"):
            read_tensors(content)
    assert not list(tmp_path.iterdir())
    with pytest.raises((EOFError, ValueError, TypeError, pickle.UnpicklingError)):
        read_tensors(legacy({"a": torch.ones(100)})[:-100])
