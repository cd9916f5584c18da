"""Batch-norm statistics of other images are those that the layers see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featuretl import ImageEmbedder, load_backbone, reestimate_batch_norm
from featuretl.exceptions import BackboneError, ImageError, InputError, ParameterError
from featuretl.store.keys import canonical_json


def darker(photos: list[str]) -> list[np.ndarray]:
    from PIL import Image

    return [np.asarray(Image.open(path).convert("RGB").resize((64, 64))) // 4 for path in photos]


def test_the_first_layers_statistics_are_those_of_its_input(photos, tmp_path):
    images = darker(photos)
    file = reestimate_batch_norm(
        images, tmp_path / "dark.safetensors", "test_resnet", weights="random", batch_size=24
    )
    plain = load_backbone("test_resnet", weights="random")
    there = load_backbone("test_resnet", weights=str(file))
    batch = plain.batch([plain.prepare(image) for image in images])
    with torch.no_grad():
        seen = plain.model.conv1[0](batch)
    near = {"rtol": 1e-3, "atol": 1e-4}
    before, after = plain.model.conv1[1], there.model.conv1[1]
    torch.testing.assert_close(after.running_mean, seen.mean((0, 2, 3)), **near)
    torch.testing.assert_close(after.running_var, seen.var((0, 2, 3)), **near)
    torch.testing.assert_close(after.weight, before.weight)
    assert not torch.equal(before.running_mean, after.running_mean)


def test_it_is_another_recipe_and_neither_disturbs_the_other(photos, tmp_path):
    plain = ImageEmbedder()
    before = plain.transform(photos[:4])
    file = reestimate_batch_norm(photos, tmp_path / "here.safetensors")
    here = ImageEmbedder(weights=str(file))
    again = reestimate_batch_norm(photos, tmp_path / "again.safetensors")
    assert file.read_bytes() == again.read_bytes()
    assert here.recipe()["backbone"] != plain.recipe()["backbone"]
    assert canonical_json(here.recipe()["preprocess"]) == canonical_json(
        plain.recipe()["preprocess"]
    )
    assert not np.allclose(here.transform(photos[:4]), before)
    np.testing.assert_array_equal(ImageEmbedder(cache=None).transform(photos[:4]), before)


def test_what_cannot_be_reestimated_says_why(photos, tmp_path):
    output = tmp_path / "out.safetensors"
    with pytest.raises(InputError, match="16 images at least; got 3"):
        reestimate_batch_norm(photos[:3], output)
    with pytest.raises(BackboneError, match="has no batch norm"):
        reestimate_batch_norm(photos, output, "test_vit", weights="random")
    with pytest.raises(ImageError, match="Image 24 cannot be used: No such file or directory"):
        reestimate_batch_norm([*photos, tmp_path / "none.jpg"], output, batch_size=16)
    with pytest.raises(ParameterError, match=r"\.safetensors file in a folder"):
        reestimate_batch_norm(photos, tmp_path / "out.pt")
    with pytest.raises(ParameterError, match="'batch_size'"):
        reestimate_batch_norm(photos, output, batch_size=1)
    assert not list(tmp_path.iterdir())
