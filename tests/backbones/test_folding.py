import pytest
import timm
import torch
from torch import nn

from featuretl import load_backbone
from featuretl.backbones.blocks import PreLogits, cut, find_blocks, trace
from featuretl.backbones.folding import fold
from featuretl.backbones.weights import tensors_digest


def shaken(model):
    """Return `model` with non-trivial batch-norms."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def modules_called(graph, module):
    return [
        type(module.get_submodule(node.target)) for node in graph.nodes if node.op == "call_module"
    ]


def test_no_batch_norm_is_left_in_the_default_backbone():
    whole = PreLogits(load_backbone().model)
    folded = fold(whole, trace(whole))
    assert timm.layers.BatchNormAct2d in modules_called(trace(whole), whole)
    kinds = {type(module) for module in folded.modules()}
    assert not kinds & {nn.BatchNorm2d, timm.layers.BatchNormAct2d}
    assert not any(p.requires_grad for p in folded.parameters())


def test_the_model_itself_stays_as_it_is():
    backbone = load_backbone()
    before = tensors_digest(backbone.model)
    assert backbone._network.folded is not backbone.model
    assert tensors_digest(backbone.model) == before


def test_a_transformer_is_not_copied():
    backbone = load_backbone("vit_small_patch16_224", weights="random")
    assert backbone._network.folded is backbone.model


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "inception_v3", "tf_mixnet_s"])
def test_a_folded_trunk_is_the_same(name):
    model = shaken(timm.create_model(name))
    trunk, _ = cut(model, name, find_blocks(model, name), 1)
    x = torch.randn(2, *model.pretrained_cfg["input_size"])
    with torch.no_grad():
        expected = trunk(x)
        found = fold(trunk, trunk.graph)(x)
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
    module = shaken(Shared())
    assert fold(module, trace(module)) is module


def test_a_bias_is_kept():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    shaken(module)
    x = torch.randn(2, 3, 9, 9)
    folded = fold(module, trace(module))
    torch.testing.assert_close(folded(x), module(x))
    assert not list(folded[1].parameters())
