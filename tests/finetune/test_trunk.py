"""Trunk: the rows that are cached, and their way back to activations."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from featuretl_cli.main import cli

from featuretl import extract
from featuretl.backbones.views import STRENGTHS
from featuretl.exceptions import BackboneError
from featuretl.extraction.image_encoder import ImageEncoder
from featuretl.finetune.network import split
from featuretl.finetune.trunk import Trunk, activation_shape, from_rows

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_cached_trunks_are_spaces_of_the_store(quick, photos, labels, cache):
    model = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    result = CliRunner().invoke(cli, ["cache", "info", "--cache", str(cache)])
    assert result.exit_code == 0, result.output
    assert "blocks.6.0" in result.output
    assert "48 embeddings" in result.output
    before = model.predict_proba(photos)
    result = CliRunner().invoke(cli, ["cache", "gc", "--max-size", "0kB", "--cache", str(cache)])
    assert "2 recipes" in result.output
    np.testing.assert_allclose(model.predict_proba(photos), before, atol=1e-5)
    again = quick(cache=cache, augment="light", epochs=3).fit(photos, labels)
    np.testing.assert_allclose(again.predict_proba(photos), before, atol=1e-5)


def trunk_of(backbone, n_blocks=1, view=0, strength="none"):
    parts = split(backbone, n_blocks)
    return Trunk(backbone, parts.trunk, n_blocks, view, STRENGTHS[strength]), parts.top


def test_the_top_makes_embeddings_of_cached_rows(tiny, pixels):
    trunk, top = trunk_of(tiny)
    assert trunk.shape == activation_shape(tiny, trunk.module) == (192, 10, 10)
    images = [pixels, pixels[:200, :300]]
    rows = trunk.embed([trunk.prepare(image) for image in images])
    assert (rows.dtype, rows.shape) == (np.float16, (2, trunk.n_features))
    with torch.no_grad():
        found = top(from_rows(torch.from_numpy(rows).float(), trunk.shape)).numpy()
    expected = tiny.embed([tiny.prepare(image) for image in images])
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(3, 2, 4), (5, 3)])
def test_rows_of_maps_are_channels_last_and_those_of_tokens_as_they_are(shape):
    activations = torch.arange(2.0 * np.prod(shape)).reshape(2, *shape)
    rows = activations.permute(0, 2, 3, 1) if len(shape) == 3 else activations
    back = from_rows(rows.reshape(2, -1), shape)
    assert torch.equal(back, activations)
    if len(shape) == 3:
        assert back.is_contiguous(memory_format=torch.channels_last)


def test_the_recipe_names_the_cut_and_the_view(tiny):
    recipes = [
        trunk_of(tiny, *how)[0].recipe
        for how in [(1,), (2,), (1, 1), (1, 2, "light"), (1, 2, "strong")]
    ]
    assert recipes[0]["output"]["layers"] == ["input of layer4.0"]
    assert recipes[1]["output"]["layers"] == ["input of layer3.0"]
    for number, recipe in enumerate(recipes):
        assert recipe["backbone"] == tiny.recipe["backbone"]
        assert recipe not in recipes[:number]
    # The image itself and its mirror image are the same in every strength.
    for view in (0, 1):
        assert trunk_of(tiny, 1, view, "strong")[0].recipe == trunk_of(tiny, 1, view)[0].recipe


def test_the_second_view_is_the_mirror_image(tiny, pixels):
    plain, mirrored = (trunk_of(tiny, 1, view, "light")[0].prepare(pixels) for view in (0, 1))
    assert not torch.equal(plain, mirrored)
    assert torch.equal(trunk_of(tiny)[0].prepare(np.ascontiguousarray(pixels[:, ::-1])), mirrored)


def test_activations_beyond_float16_are_refused(tiny, pixels, monkeypatch):
    parts = split(tiny, 1)

    class Loud(torch.nn.Module):
        def forward(self, batch):
            return 1e6 * (1 + parts.trunk(batch).abs())

    trunk = Trunk(tiny, Loud(), 1, 0, STRENGTHS["none"])
    with pytest.raises(BackboneError, match=r"'test_resnet' .*'layer4\.0'.*cache_trunk=False"):
        trunk.embed([trunk.prepare(pixels)])
    monkeypatch.setattr(ImageEncoder, "golden", np.zeros(1))
    monkeypatch.setattr(ImageEncoder, "pipelined", property(lambda self: self._workers))
    with pytest.raises(BackboneError, match="do not fit into float16"):
        extract([pixels], trunk)


def test_a_pipeline_gives_the_same_activations(tiny, photos, monkeypatch):
    trunk, _ = trunk_of(tiny, view=1)
    expected = extract(photos, trunk).to_numpy()
    monkeypatch.setattr(ImageEncoder, "pipelined", property(lambda self: self._workers))
    found = extract(photos, trunk, batch_size=7)
    assert found.statistics.embedded == 24
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=0.01, atol=0.01)
