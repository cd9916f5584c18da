"""Fine-tuning, heads, explanations and exports with a model on a device."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    explain,
    export_model,
    load_backbone,
)
from featuretl.finetune.checkpoint import Checkpoint
from featuretl.finetune.training import Training

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")]


@pytest.fixture
def quick(device, cache):
    """Return an estimator of two epochs in float32."""

    def make(**parameters):
        defaults = {
            "device": device,
            "n_blocks": 1,
            "learning_rate": 0.003,
            "epochs": 2,
            "batch_size": 8,
            "augment": "none",
            "cache": cache,
            "training": Training(precision="float32"),
            "random_state": 0,
        }
        return FineTuneClassifier(
            load_backbone("test_resnet", weights="random", device="cpu"), **(defaults | parameters)
        )

    return make


@pytest.mark.parametrize("cache_trunk", [True, False])
def test_the_first_losses_are_those_of_the_cpu(quick, photos, labels, cache_trunk):
    on_device, on_cpu = (
        quick(cache_trunk=cache_trunk, **where).fit(photos, labels).history_["loss"]
        for where in ({}, {"device": "cpu"})
    )
    # PyTorch computes the convolutions of the training in TF32.
    np.testing.assert_allclose(on_device[:1], on_cpu[:1], rtol=0.01)
    np.testing.assert_allclose(on_device, on_cpu, rtol=0.1)


def test_bfloat16_training_has_finite_losses(quick, photos, labels):
    fitted = quick(training=Training(precision="bfloat16")).fit(photos, labels)
    assert np.isfinite(fitted.history_["loss"]).all()
    assert np.isfinite(fitted.predict_proba(photos)).all()


def test_a_killed_fit_resumes(quick, photos, labels, tmp_path, monkeypatch):
    whole = quick().fit(photos, labels)
    model = quick(checkpoint=tmp_path / "checkpoint")
    save = Checkpoint.save

    def save_and_die(self, training):
        save(self, training)
        raise MemoryError("killed")

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    with pytest.raises(MemoryError):
        model.fit(photos, labels)
    monkeypatch.undo()
    resumed = clone(model).fit(photos, labels)
    assert resumed.history_["epoch"].tolist() == [1, 2]
    expected = whole.predict_proba(photos)
    np.testing.assert_allclose(resumed.predict_proba(photos), expected, atol=1e-3)


def test_training_leaves_the_random_numbers_of_the_device(quick, photos, labels, on_gpu):
    def state():
        return torch.cuda.get_rng_state() if on_gpu else torch.get_rng_state()

    before = state()
    quick().fit(photos, labels)
    assert torch.equal(state(), before)


def test_a_pipeline_explains_and_exports(device, photos, labels, tmp_path):
    backbone = load_backbone("test_resnet", weights="random", device=device)
    pipe = make_pipeline(ImageEmbedder(backbone, cache=None), LinearProbeClassifier())
    pipe.fit(photos, labels)
    _explains_and_exports(pipe, device, photos, tmp_path)


def test_a_fine_tuned_model_explains_exports_and_moves(quick, device, photos, labels, tmp_path):
    model = quick(cache_trunk=False).fit(photos, labels)
    _explains_and_exports(model, device, photos, tmp_path)
    expected = model.predict_proba(photos)
    on_cpu = model.set_params(device="cpu").predict_proba(photos)
    np.testing.assert_allclose(on_cpu, expected, atol=5e-3)


def _explains_and_exports(model, device, photos, folder):
    found, expected = (explain(model, photos[:1], device=d)[0] for d in (device, "cpu"))
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-2, atol=1e-3)
    assert np.isfinite(found.heat).all()
    assert export_model(model, folder / "model.onnx", check=photos[:2]).difference < 1e-3


@pytest.mark.parametrize("dispatch", [False, True])
def test_heads_take_tensors_of_the_device(device, labels, dispatch, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X = torch.randn((len(labels), 8), generator=torch.Generator().manual_seed(0))
    expected = LinearProbeClassifier().fit(X.numpy(), labels)
    with sklearn.config_context(array_api_dispatch=dispatch):
        head = LinearProbeClassifier().fit(X.to(device), labels)
        logits = head.decision_function(X.to(device))
    assert isinstance(logits, torch.Tensor) == dispatch
    np.testing.assert_allclose(head.coef_, expected.coef_, rtol=1e-2, atol=1e-3)
