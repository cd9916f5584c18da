import copy

import pytest
import timm
import torch
from torch import nn

from featuretl import load_backbone
from featuretl.backbones.blocks import cut, find_blocks
from featuretl.backbones.folding import fold


def traced(module):
    return torch.fx.symbolic_trace(module).eval()


def shaken(model):
    """Return `model` with batch-norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def gradients(module, x):
    module.zero_grad()
    torch.square(module(x)).mean().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_folded_top_has_the_same_outputs_gradients_and_names(n_blocks):
    trunk, top = load_backbone().cut(n_blocks)
    plain = copy.deepcopy(top).requires_grad_(True)
    folded = fold(copy.deepcopy(top)).requires_grad_(True)
    x = trunk(torch.randn(2, 3, 224, 224))
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-4)
    expected, found = gradients(plain, x), gradients(folded, x)
    assert list(expected) == list(found)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * scale)
    assert list(plain.state_dict()) == list(folded.state_dict())


def test_no_batch_norm_is_left_after_a_convolution():
    trunk, _ = load_backbone().cut(3)
    fold(trunk)
    kinds = {
        type(trunk.get_submodule(node.target))
        for node in trunk.graph.nodes
        if node.op == "call_module"
    }
    assert kinds == {nn.ReLU6, nn.Identity}


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "inception_v3", "tf_mixnet_s"])
def test_a_folded_trunk_is_the_same(name):
    model = shaken(timm.create_model(name))
    trunk, _ = cut(model, name, find_blocks(model, name), 1)
    x = torch.randn(2, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        expected = trunk(x)
        found = fold(trunk)(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


class Shared(nn.Module):
    """A convolution whose output is used twice, and a batch-norm without one."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(self.first(x))
        return x + self.norm(x)


def test_what_is_used_elsewhere_stays():
    module = traced(shaken(Shared()))
    x = torch.randn(2, 3, 8, 8)
    expected = module(x)
    folded = fold(module)
    torch.testing.assert_close(folded(x), expected)
    targets = [node.target for node in folded.graph.nodes if node.op == "call_module"]
    assert targets == ["first", "conv", "norm"]


def test_a_bias_and_padding_are_kept():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    module = traced(shaken(module))
    x = torch.randn(2, 3, 9, 9)
    expected = module(x)
    torch.testing.assert_close(fold(module)(x), expected)
    targets = [node.target for node in module.graph.nodes if node.op == "call_module"]
    assert targets == ["2"]
