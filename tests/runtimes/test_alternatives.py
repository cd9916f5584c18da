"""Alternatives to eager PyTorch give the same embeddings; exported models are cached."""

import logging
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from featuretl import extract, load_backbone
from featuretl.runtimes import alternatives, choice
from featuretl.runtimes.choice import ALTERNATIVES

EXPORTED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not choice._has(ALTERNATIVES[name].packages[0]), reason=f"pip install {name}"
        ),
    )
    for name in ("onnx", "openvino")
]


@pytest.mark.parametrize("runtime", EXPORTED)
def test_the_default_backbone_gives_the_same_embeddings(cosines, photos, runtime):
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
def test_layers_and_pooling_run_in_it_too(cosines, photos, runtime, name, output):
    backbone = load_backbone(name, weights="random", **output)
    expected = extract(photos[:3], backbone, runtime="torch").to_numpy()
    found = extract(photos[:3], backbone, runtime=runtime).to_numpy()
    assert cosines(expected, found).min() > 0.9999


@pytest.mark.slow
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


def test_nothing_is_heard_while_exporting_and_all_afterwards(capsys, caplog):
    with pytest.raises(ZeroDivisionError):
        with alternatives.quiet():
            print("a line")
            logging.getLogger("exporter").critical("a record")
            warnings.warn("a warning", stacklevel=1)  # an error in pytest, if it were heard
            raise ZeroDivisionError
    assert capsys.readouterr().out == ""
    assert not caplog.records
    logging.getLogger("exporter").critical("another record")
    assert [record.message for record in caplog.records] == ["another record"]
