import copy

import pytest
import timm
import torch

from featuretl import load_backbone
from featuretl.backbones.blocks import check_cut, cut, find_blocks
from featuretl.exceptions import BackboneError

# Name, number of blocks, first and last block.
MODELS = [
    ("tf_efficientnet_lite0", 16, "blocks.0.0", "blocks.6.0"),
    ("mobilenetv2_100", 17, "blocks.0.0", "blocks.6.0"),
    ("resnet18", 8, "layer1.0", "layer4.1"),
    ("vit_tiny_patch16_224", 12, "blocks.0", "blocks.11"),
    ("convnext_atto", 12, "stages.0.blocks.0", "stages.3.blocks.1"),
]
LARGE = [
    ("resnet50", 16, "layer1.0", "layer4.2"),
    ("vgg16", 12, "features.2", "features.28"),
    ("inception_v3", 12, "Conv2d_3b_1x1", "Mixed_7c"),
    ("vit_small_patch16_224", 12, "blocks.0", "blocks.11"),
    ("convnext_tiny", 18, "stages.0.blocks.0", "stages.3.blocks.2"),
    ("swin_tiny_patch4_window7_224", 12, "layers.0.blocks.0", "layers.3.blocks.1"),
]


def model_of(name):
    torch.manual_seed(0)
    return timm.create_model(name).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "number", "first", "last"),
    [*MODELS, *(pytest.param(*model, marks=pytest.mark.slow) for model in LARGE)],
)
def test_blocks_and_cuts(name, number, first, last):
    model = model_of(name)
    blocks = find_blocks(model, name)
    names = [block.name for block in blocks]
    assert (len(blocks), names[0], names[-1]) == (number, first, last)
    assert len(set(names)) == number
    every = [p for block in blocks for p in block.parameters]
    assert len(every) == len(set(every))
    assert not {n for n, _ in model.get_classifier().named_parameters("classifier")} & set(every)
    x = torch.randn((2, *model.pretrained_cfg["input_size"]))
    for n_blocks in (1, 3):
        trunk, top = cut(model, name, blocks, n_blocks)
        check_cut(model, trunk, top, x, name)
        upper = set().union(*(block.parameters for block in blocks[-n_blocks:]))
        in_top = {n.removeprefix("model.") for n, _ in top.named_parameters()}
        assert in_top == upper
        assert not {n.removeprefix("model.") for n, _ in trunk.named_parameters()} & upper


def test_a_wrong_cut_is_noticed():
    model = model_of("resnet18")
    trunk, top = cut(model, "resnet18", find_blocks(model, "resnet18"), 1)
    x = torch.randn(2, 3, 64, 64)
    top = copy.deepcopy(top)
    with torch.no_grad():
        for parameter in top.parameters():
            parameter.add_(0.1)
    with pytest.raises(BackboneError, match=r"'resnet18'.*two parts"):
        check_cut(model, trunk, top, x, "resnet18")


def test_dense_connections_cannot_be_cut():
    model = model_of("densenet121")
    with pytest.raises(BackboneError, match=r"'densenet121' cannot be cut"):
        cut(model, "densenet121", find_blocks(model, "densenet121"), 1)


def test_a_model_without_groups_says_so():
    with pytest.raises(BackboneError, match="'poolformer_s12'"):
        find_blocks(model_of("poolformer_s12"), "poolformer_s12")


def test_a_model_that_cannot_be_traced_says_so(monkeypatch):
    model = model_of("resnet18")
    monkeypatch.setattr(
        model, "forward_features", lambda x: x if x.sum() > 0 else -x, raising=False
    )
    with pytest.raises(BackboneError, match=r"'resnet18'.*traced"):
        cut(model, "resnet18", find_blocks(model_of("resnet18"), "resnet18"), 1)


def test_the_backbone_lists_its_blocks():
    backbone = load_backbone()
    assert backbone.blocks[-3:] == ("blocks.5.2", "blocks.5.3", "blocks.6.0")
    trunk, top = backbone.cut(3)
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert trunk(x).shape == (1, 192, 7, 7)
        whole = backbone.model.forward_head(backbone.model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(top(trunk(x)), whole.flatten(1), rtol=1e-4, atol=1e-4)
