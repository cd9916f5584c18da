"""Evidence equals slopes of the score, and looking for it leaves the network unchanged."""

import numpy as np
import pytest
import torch

from featuretl import LinearProbeClassifier, NearestMeanClassifier, explain
from featuretl.backbones.backbone import load_backbone
from featuretl.exceptions import BackboneError
from featuretl.explanation.evidence import (
    CAM,
    HIRESCAM,
    ROLLOUT,
    attention_layers,
    evidence,
    rollout,
)
from featuretl.networks.network import network_of


@pytest.mark.parametrize(
    "head, parameters",
    [
        (NearestMeanClassifier(), {}),
        (LinearProbeClassifier(), {"normalize": True}),
        (LinearProbeClassifier(), {"pooling": "gem"}),
        (LinearProbeClassifier(), {"backbone": "test_convnext"}),  # normalises after pooling
    ],
)
def test_otherwise_it_is_the_slope_along_the_map(head, parameters, small, photos, labels):
    """The mean of map times gradient is the derivative of the score with respect to the map's scale."""
    model = small(head, photos, labels, **parameters)
    (found,) = explain(model, photos[:1], target="temple")
    assert found.method == HIRESCAM and found.bias is None
    network = network_of(model, "cpu")
    with torch.no_grad():
        ((index, x),) = network.embedding.outputs(network.batch(photos[:1])).items()
        more, less = (
            network.head(network.embedding.pooled({index: x * by})) for by in (1.01, 0.99)
        )
    slope = float(more - less) / 0.02
    assert found.heat.mean() == pytest.approx(slope, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("pooling", ["auto", "avg", "cls+avg"])
def test_rollout_of_a_vision_transformer(pooling, small, photos, labels):
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit", pooling=pooling)
    before = model[0].transform(photos[:1])
    (found,) = explain(model, photos[:1])
    assert found.method == ROLLOUT
    assert found.heat.shape == (10, 10) and found.heat.min() >= 0 and found.heat.max() > 0
    assert explain(model, photos[1:2])[0].heat.tolist() != found.heat.tolist()
    np.testing.assert_array_equal(model[0].transform(photos[:1]), before)


def test_rollout_is_attention_times_its_slope(small, photos, labels):
    """The last layer alone is compared with differences of the score under changed attention."""
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit")
    network = network_of(model, "cpu")
    layer = attention_layers(network.embedding.model)[-1]
    batch, weight = network.batch(photos[:1]), torch.ones(1)
    found = rollout(network, batch, weight, [layer]).ravel()
    layer.fused_attn = False
    patch, step = int(found.argmax()), 1e-2
    attention = []

    def value(head, by):
        def change(module, args, output):
            attention.append(output[0, :, 0, 1 + patch])
            output = output.clone()
            output[0, head, 0, 1 + patch] += by
            return output

        hook = layer.attn_drop.register_forward_hook(change)
        changed = float(network.values(batch)[0, 0])
        hook.remove()
        return changed

    heads = range(layer.num_heads)
    slopes = [(value(head, step) - value(head, -step)) / (2 * step) for head in heads]
    expected = np.maximum(np.array(slopes) * attention[0].numpy(), 0).mean()
    assert found[patch] == pytest.approx(expected, rel=0.02)


def test_the_map_of_a_final_layer_has_the_size_of_the_finest_layer(small, photos, labels):
    """Coarser maps are added to finer ones by repeating their cells."""
    model = small(LinearProbeClassifier(), photos, labels, layers=[1, "pre_logits"], pooling="avg")
    network = network_of(model, "cpu")
    batch = network.batch(photos[:1])
    with torch.no_grad():
        sizes = [tuple(x.shape[2:]) for x in network.embedding.outputs(batch).values()]
    assert len(set(sizes)) == 2
    found = evidence(network, batch, np.ones(1, np.float32))
    assert found.method == CAM
    assert found.heat.shape == max(sizes)
    value = float(network.values(batch)[0, 0])
    assert found.heat.mean() + found.bias == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_the_opposite_weight_has_the_opposite_map(small, photos, labels):
    network = network_of(small(LinearProbeClassifier(), photos, labels), "cpu")
    batch = network.batch(photos[:1])
    one, other = (evidence(network, batch, np.array([sign], np.float32)) for sign in (1.0, -1.0))
    np.testing.assert_allclose(one.heat, -other.heat, atol=1e-5)
    assert one.bias == pytest.approx(-other.bias)


def test_only_networks_of_patches_have_attention_layers():
    assert attention_layers(load_backbone("test_resnet", weights="random").embedding.model) == []
    model = load_backbone("test_vit", weights="random").embedding.model
    assert len(attention_layers(model)) == len(model.blocks)


def test_attention_is_fused_again_afterwards(small, photos, labels):
    network = network_of(small(LinearProbeClassifier(), photos, labels, backbone="test_vit"), "cpu")
    layers, batch = attention_layers(network.embedding.model), network.batch(photos[:1])
    for layer in layers:
        layer.fused_attn = True
    rollout(network, batch, torch.ones(1), layers)
    assert all(layer.fused_attn for layer in layers)
    assert not any(layer.attn_drop._forward_hooks for layer in layers)


def test_relevance_is_never_negative_whatever_the_sign(small, photos, labels):
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit")
    network = network_of(model, "cpu")
    layers, batch = attention_layers(network.embedding.model), network.batch(photos[:1])
    for_, against = (rollout(network, batch, torch.tensor([s]), layers) for s in (1.0, -1.0))
    assert for_.min() >= 0 and against.min() >= 0
    assert not np.allclose(for_, against)


def test_channels_last_maps_are_read_as_such(small, photos, labels):
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_mambaout")
    network = network_of(model, "cpu")
    batch = network.batch(photos[:1])
    with torch.no_grad():
        output = network.embedding.outputs(batch)[None]
    assert output.shape[1] == output.shape[2] != output.shape[3]
    assert evidence(network, batch, np.ones(1, np.float32)).heat.shape == output.shape[1:3]


def test_without_attention_over_all_patches_there_is_an_error(small, photos, labels):
    model = small(LinearProbeClassifier(), photos, labels, backbone="test_vit")
    network = network_of(model, "cpu")
    with pytest.raises(BackboneError, match="attention over all patches"):
        rollout(network, network.batch(photos[:1]), torch.ones(1), [])
