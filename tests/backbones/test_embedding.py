"""Class tokens of timm's families, found without memory for tensors."""

from __future__ import annotations

import math

import pytest
import timm
import torch

from featuretl.backbones.embedding import Embedding, has_class_token, usual_pooling
from featuretl.exceptions import BackboneError

CLS, AVG = "cls", "avg"  # what usual_pooling says
# A small network of each family with tokens: its usual pooling, and whether it has a class token.
FAMILIES = {
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


@pytest.mark.parametrize("name", FAMILIES)
def test_class_tokens_are_known_and_averages_exclude_all_prefix_tokens(name):
    usual, is_there = FAMILIES[name]
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
