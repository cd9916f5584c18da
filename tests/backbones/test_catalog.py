"""The packaged and the recommended backbones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from featuretl.backbones import catalog, listing


def test_packaged_weights_are_found_where_they_are_installed(monkeypatch):
    for name, packaged in catalog.PACKAGED.items():
        assert timm.is_model(name)
        assert re.fullmatch("[0-9a-f]{64}", packaged.sha256)
        file = catalog.packaged_file(name)
        assert file is None or file.is_file()
    assert catalog.packaged_file(catalog.DEFAULT_BACKBONE) is not None
    assert catalog.packaged_file("resnet50") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert catalog.packaged_file(catalog.DEFAULT_BACKBONE) is None


def test_recommended_backbones_exist_and_are_those_of_the_guide():
    guide = Path(__file__).parents[2] / "docs" / "guide" / "backbones.md"
    lines = guide.read_text(encoding="utf-8").split("| purpose |")[1].splitlines()[2:]
    rows = []
    for one in catalog.RECOMMENDED:
        config = timm.get_pretrained_cfg(one.name)
        assert config.hf_hub_id
        _, height, width = config.input_size
        (info,) = listing.describe_backbones([one.name])
        cells = [one.purpose, f"`{one.name}`", info.license, f"{one.gflops:g}"]
        cells += [str(info.n_features), f"{height} x {width}"]
        rows.append(f"| {' | '.join(cells)} |")
    assert lines[: len(rows) + 1] == [*rows, ""]


@pytest.mark.parametrize("one", catalog.RECOMMENDED[:2], ids=lambda one: one.name)
def test_gflops_are_those_that_torch_counts(one):
    with torch.device("meta"):
        model = timm.create_model(one.name).eval().requires_grad_(False)
        batch = torch.zeros(1, *model.pretrained_cfg["input_size"])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_head(model.forward_features(batch), pre_logits=True)
    assert round(counter.get_total_flops() / 1e9, 1) == one.gflops
