"""Embeddings equal timm's for every family, pooling and layout."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from featuretl import ImageEmbedder, extract, load_backbone
from featuretl.backbones.embedding import Embedding, has_class_token, usual_pooling
from featuretl.exceptions import BackboneError, ParameterError

LARGE = ["resnet50", "vgg16", "inception_v3", "vit_small_patch16_224", "convnext_tiny"]
FAMILIES = [
    *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
    "test_resnet",
    "test_vit",
    "test_convnext",
    "swin_tiny_patch4_window7_224",  # NHWC
    "vit_small_patch16_dinov3",  # class token and register tokens
    "vit_wee_patch16_reg1_gap_256",  # a register token, no class token
]
CLS, AVG = "cls", "avg"  # what usual_pooling says
# A small network of each family with tokens: its usual pooling, and whether it has a class token.
WITH_TOKENS = {
    "beit_base_patch16_224": (AVG, True),
    "cait_xxs24_224": (CLS, True),
    "coat_lite_tiny": (CLS, True),
    "coat_tiny": (CLS, True),
    "convit_tiny": (CLS, True),
    "crossvit_9_240": (CLS, True),
    "deit_tiny_distilled_patch16_224": (CLS, True),
    "eva02_tiny_patch14_224": (AVG, True),
    "vit_base_patch16_rope_reg1_gap_256": (AVG, False),
    "vit_small_patch16_dinov3": (AVG, True),
    "mvitv2_base_cls": (CLS, True),
    "naflexvit_base_patch16_gap": (AVG, False),
    "pit_ti_224": (CLS, True),
    "pit_ti_distilled_224": (CLS, True),
    "test_vit": (CLS, True),
    "test_vit2": (AVG, False),
    "test_vit3": (AVG, False),
    "tnt_s_patch16_224": (CLS, True),
    "vit_relpos_base_patch16_clsgap_224": (AVG, True),
    "vit_small_patch14_reg4_dinov2": (CLS, True),
    "volo_d1_224": (CLS, True),
    "xcit_nano_12_p16_224": (CLS, True),
}
ONLY_TOKENS = ("pit_ti_224", "pit_ti_distilled_224")  # forward_features drops the patches


def prepare(backbone, pixels, n=2):
    return [backbone.prepare(pixels[i * 20 : i * 20 + 300, 50:400]) for i in range(n)]


def assert_close(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert a.shape == b.shape
    assert cosine.min() > 0.99999
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_timms_pre_logits_and_pools_by_the_models_own_layout(name, pixels):
    backbone = load_backbone(name, weights="random")
    model = backbone.model
    inputs = prepare(backbone, pixels)
    with torch.inference_mode():
        features = model.forward_features(backbone.batch(inputs))
        expected = model.forward_head(features, pre_logits=True)
    assert_close(backbone.embed(inputs), expected)
    assert backbone.n_features == expected.shape[1]

    prefix = getattr(model, "num_prefix_tokens", 0)
    if features.ndim == 3:
        positions = features[:, prefix:]
    elif getattr(model, "output_fmt", "NCHW") == "NHWC":
        positions = features.flatten(1, 2)
    else:
        positions = features.flatten(2).transpose(1, 2)
    expected_pools = {
        "avg": positions.mean(1),
        "max": positions.amax(1),
        "avg+max": torch.cat([positions.mean(1), positions.amax(1)], 1),
        "gem": positions.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3),
        "flatten": positions.transpose(1, 2).flatten(1),
    }
    has_cls = getattr(model, "cls_token", None) is not None
    if has_cls:
        expected_pools["cls"] = features[:, 0]
        expected_pools["cls+avg"] = torch.cat([features[:, 0], positions.mean(1)], 1)
    for pooling, expected in expected_pools.items():
        pooled = load_backbone(name, weights="random", pooling=pooling)
        assert_close(pooled.embed(inputs), expected)
    if not has_cls:
        with pytest.raises(BackboneError, match="no class token"):
            load_backbone(name, weights="random", pooling="cls")


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        "test_convnext",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_224", marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
    ],
)
def test_layers_come_from_one_forward_pass_in_the_order_asked(name, pixels):
    single = load_backbone(name, weights="random")
    names = single.layer_names
    inputs = prepare(single, pixels)
    several = load_backbone(name, weights="random", layers=[-1, "pre_logits", names[0]])
    passes = []
    several.model.register_forward_hook(lambda *_: passes.append(1))
    last = load_backbone(name, weights="random", layers=names[-1]).embed(inputs)
    first = load_backbone(name, weights="random", layers=0).embed(inputs)
    together = several.embed(inputs)
    assert_close(together, np.concatenate([last, single.embed(inputs), first], axis=1))
    assert several.recipe["output"]["layers"] == [names[-1], "pre_logits", names[0]]


def test_a_layer_is_the_average_of_timms_intermediate(pixels):
    backbone = load_backbone(layers="blocks.4")
    inputs = prepare(backbone, pixels)
    with torch.inference_mode():
        maps = backbone.model.forward_intermediates(backbone.batch(inputs), intermediates_only=True)
    assert_close(backbone.embed(inputs), maps[3].mean((2, 3)))
    assert load_backbone(layers=3).recipe == backbone.recipe  # two names, one recipe


def test_class_token_of_a_layer_leaves_registers_out(pixels):
    name = "vit_small_patch16_dinov3"
    cls = load_backbone(name, weights="random", layers=5, pooling="cls")
    inputs = prepare(cls, pixels)
    with torch.inference_mode():
        maps = cls.model.forward_intermediates(
            cls.batch(inputs), indices=[5], return_prefix_tokens=True, intermediates_only=True
        )
    assert_close(cls.embed(inputs), maps[0][1][:, 0])


def test_a_batch_of_one_equals_a_batch_of_many(pixels):
    backbone = load_backbone()
    inputs = prepare(backbone, pixels, n=5)
    together = backbone.embed(inputs)
    assert together.dtype == np.float32
    assert_close(together, np.concatenate([backbone.embed([x]) for x in inputs]))


def test_normalize_gives_unit_length(pixels):
    backbone = load_backbone(normalize=True)
    np.testing.assert_allclose(
        np.linalg.norm(backbone.embed(prepare(backbone, pixels)), axis=1), 1, rtol=1e-5
    )


@pytest.mark.parametrize(
    "name",
    [
        "coat_lite_tiny",
        "coat_tiny",
        "crossvit_tiny_240",
        "pit_ti_224",
        "pit_ti_distilled_224",
        pytest.param("volo_d1_224", marks=pytest.mark.slow),
        "cait_xxs24_224",
    ],
)
def test_class_tokens_of_models_that_do_not_count_them_are_no_positions(name):
    backbone = load_backbone(name, weights="random", pooling="cls")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, *backbone.preprocessing.input_size), generator=generator)
    with torch.inference_mode():
        features = backbone.model.forward_features(x)
    branches = features if isinstance(features, list) else [features]
    expected = {
        "cls": torch.cat([branch[:, 0] for branch in branches], 1),
        "avg": torch.cat([branch[:, 1:].mean(1) for branch in branches], 1),
    }
    if name.startswith("pit"):  # it gives only class tokens
        del expected["avg"]
        with pytest.raises(BackboneError, match=r"'avg'.*'cls'"):
            assert load_backbone(name, weights="random", pooling="avg").n_features
    for pooling, rows in expected.items():
        pooled = load_backbone(name, weights="random", pooling=pooling)
        assert_close(pooled.forward(x), rows)


@pytest.mark.parametrize("name", ["xcit_nano_12_p8_224", "convit_tiny", "cait_xxs24_224"])
def test_layers_of_models_that_give_no_prefix_tokens_are_averaged(name):
    if not hasattr(timm.create_model(name), "forward_intermediates"):
        pytest.skip("this version of timm gives only the last layer of the model")
    backbone = load_backbone(name, weights="random", layers=(1, "pre_logits"))
    x = torch.randn((1, *backbone.preprocessing.input_size))
    with torch.inference_mode():
        maps = backbone.model.forward_intermediates(x, indices=[1], intermediates_only=True)
    found = backbone.forward(x)
    assert_close(found[:, : maps[0].shape[1]], maps[0].mean((2, 3)))
    with pytest.raises(BackboneError, match="no class token"):
        assert load_backbone(name, weights="random", layers=1, pooling="cls").n_features


@pytest.mark.parametrize(
    ("attributes", "has_token", "usual"),
    [
        ({}, False, "avg"),
        ({"num_prefix_tokens": 1, "global_pool": "token"}, True, "cls"),
        ({"num_prefix_tokens": 1, "global_pool": "avg"}, True, "avg"),
        ({"num_prefix_tokens": 5, "num_reg_tokens": 4, "global_pool": "token"}, True, "cls"),
        ({"num_prefix_tokens": 1, "num_reg_tokens": 1, "global_pool": "avg"}, False, "avg"),
        ({"cls_token": torch.zeros(1, 2, 8), "global_pool": "token"}, True, "cls"),
        ({"global_pool": "token"}, True, "cls"),  # under another name, as in CoaT
    ],
)
def test_a_register_token_is_no_class_token(attributes, has_token, usual):
    model = SimpleNamespace(**attributes)
    assert has_class_token(model) == has_token
    assert usual_pooling(model) == usual


def test_layers_are_concatenated_in_the_order_of_the_indices_also_twice():
    embedding = Embedding(torch.nn.Identity(), [1, 0, 1], "max", normalize=True)
    outputs = {0: torch.full((2, 1, 2, 2), 3.0), 1: torch.tensor([[[[4.0, -9.0]]]] * 2)}
    found = embedding.pooled(outputs)
    assert found.dtype == torch.float32
    expected = torch.tensor([4.0, 3.0, 4.0]) / 41**0.5
    torch.testing.assert_close(found, expected.expand(2, 3))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_vit", "pre_logits"),  # tokens behind a class token
        ("test_vit", [0, -1]),
        ("test_resnet", "pre_logits"),
        ("test_resnet", 1),
        ("swin_tiny_patch4_window7_224", "pre_logits"),  # channels last
        ("test_convnext", ["pre_logits", -1]),
    ],
)
def test_a_grid_is_the_positions_that_average_pooling_averages(photos, name, layers):
    grid = extract(photos[:2], load_backbone(name, weights="random", layers=layers, pooling="grid"))
    average = load_backbone(name, weights="random", layers=layers, pooling="avg")
    expected = extract(photos[:2], average).to_numpy()
    found = grid.to_numpy()
    assert found.shape == grid.shape == (2, *grid.recipe["output"]["grid"])
    np.testing.assert_allclose(found.mean((1, 2)), expected, atol=1e-4)


def test_a_grid_follows_the_image(pixels):
    """The embedding of a position depends most on the pixels there."""
    backbone = load_backbone(layers=1, pooling="grid", image_size=128, crop_pct=1.0)
    square = np.array(Image.fromarray(pixels).resize((128, 128)))
    changed = square.copy()
    changed[:32, 96:] = 0  # the upper right corner
    one, two = extract([square, changed], backbone).to_numpy()
    difference = np.linalg.norm(one - two, axis=2)
    h, w = difference.shape
    assert difference[: h // 4, 3 * w // 4 :].mean() > 10 * difference[h // 2 :, : w // 2].mean()


def test_a_grid_is_cached_in_every_form(photos, store):
    embedder = ImageEmbedder("test_vit", weights="random", pooling="grid", cache=store)
    first = embedder.transform(photos[:4])
    again = embedder.extract(photos[:4])
    assert again.statistics.cached == 4
    for found in (
        again.to_numpy(),
        again.memmap(),
        again.rows(np.arange(4)),
        embedder.transform(photos[:4]),
    ):
        np.testing.assert_array_equal(found, first)
    assert np.concatenate(list(again.chunks(3))).shape == (4, first[0].size)


@pytest.mark.parametrize(
    ("name", "output", "error", "fact"),
    [
        ("test_resnet", {"layers": [0, -1]}, BackboneError, "one size"),
        ("test_resnet", {"views": "flip"}, ParameterError, "'views'"),
        ("test_vit", {"pooling": "grids"}, ParameterError, "'pooling'"),
    ],
)
def test_what_has_no_grid_is_refused(name, output, error, fact):
    with pytest.raises(error, match=fact):
        _ = load_backbone(name, weights="random", **{"pooling": "grid", **output}).n_features


@pytest.mark.parametrize("name", WITH_TOKENS)
def test_class_tokens_are_known_and_averages_exclude_all_prefix_tokens(name):
    usual, is_there = WITH_TOKENS[name]
    # timm 1.0.22 computes DINOv3's positions on the CPU.
    device = "cpu" if "dinov3" in name else "meta"
    with torch.device(device):
        model = timm.create_model(name).eval()
    assert has_class_token(model) == is_there
    assert usual_pooling(model) == usual
    batch = torch.zeros((1, *model.pretrained_cfg["input_size"]), device=device)
    with torch.inference_mode():
        features = model.forward_features(batch)

        def embedding(pooling):
            return Embedding(model, [None], pooling, False).pooled({None: features})

        branches = features if isinstance(features, (tuple, list)) else [features]
        widths = [branch.shape[2] for branch in branches]
        if name in ONLY_TOKENS:
            with pytest.raises(BackboneError, match="only class tokens"):
                embedding("avg")
        else:
            assert embedding("avg").shape == embedding("max").shape == (1, sum(widths))
            positions = embedding("flatten").shape[1]
            squares = sum(
                w * math.isqrt(b.shape[1]) ** 2 for w, b in zip(widths, branches, strict=True)
            )
            assert positions == squares  # the patches form a square
        if is_there:
            assert embedding("cls").shape == (1, sum(widths))
        else:
            with pytest.raises(BackboneError, match="class token"):
                embedding("cls")
