"""A source finds the space of its recipe, without the network where the memo knows the recipe."""

from __future__ import annotations

import dataclasses
import os
import time

import numpy as np
import pytest
import safetensors.torch
import timm

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning
from featuretl.extraction.source import Source
from featuretl.store.collect import collect
from featuretl.store.space import Space

TINY = BackboneSpec.of("test", "test_resnet", weights="random")


def test_a_warm_run_reads_no_image_and_loads_no_network(photos, store, monkeypatch):
    later = time.time_ns() + 10**10
    # The files are old enough to be recognised by their state.
    monkeypatch.setattr("time.time_ns", lambda: later)
    expected = extract(photos, TINY, store=store).to_numpy()

    def refuse(*args):
        raise AssertionError("touched")

    monkeypatch.setattr("featuretl.extraction.image_encoder.ImageEncoder.read", refuse)
    monkeypatch.setattr("featuretl.backbones.backbone.load_spec", refuse)
    np.testing.assert_array_equal(extract(photos, TINY, store=store).to_numpy(), expected)


def test_recipes_do_not_mix(photos, store, counts):
    tiny_max = dataclasses.replace(TINY, pooling="max")
    a, b = (extract(photos, spec, store=store) for spec in (TINY, tiny_max))
    assert counts(b) == (24, 0, 0)
    assert not np.allclose(a.to_numpy(), b.to_numpy())
    assert [info.rows for info in store.info()] == [24, 24]


def test_drifted_embeddings_are_made_anew_not_mixed(photos, store, monkeypatch, counts):
    extract(photos[:4], TINY, store=store)
    forward = TorchRuntime.__call__
    monkeypatch.setattr(TorchRuntime, "__call__", lambda self, x: forward(self, x) + 1)
    with pytest.warns(FeatureTLWarning, match="golden image"):
        extraction = extract(photos[:6], TINY, store=store)
    assert counts(extraction) == (6, 0, 0)
    assert counts(extract(photos[:6], TINY, store=store)) == (0, 6, 0)


def test_a_read_only_store_serves_what_it_has(photos, store, tmp_path, counts):
    extract(photos[:3], TINY, store=store)
    if os.getuid() == 0:
        pytest.skip("root may write anywhere")
    store.path.chmod(0o500)
    try:
        assert counts(extract(photos[:3], TINY, store=EmbeddingStore(store.path))) == (0, 3, 0)
    finally:
        store.path.chmod(0o700)


def test_a_limit_between_planning_and_opening_costs_time_only(photos, cache, monkeypatch):
    extract(photos[:2], TINY, store=EmbeddingStore(cache))
    held = Source.held

    def after_a_collection(source):
        collect(EmbeddingStore(cache), max_size=0)
        return held(source)

    monkeypatch.setattr(Source, "held", after_a_collection)
    extraction = extract(photos[:3], TINY, store=EmbeddingStore(cache))
    assert np.isfinite(extraction.to_numpy()).all()
    assert extraction.statistics.embedded == 3


def test_without_a_store_rows_stay_in_memory_and_nothing_is_remembered():
    source = Source(TINY, None)
    assert source.remembered() is None
    with source.held():
        space, recipe = source.open()
    assert type(space) is Space
    assert space.d == recipe["output"]["n_features"]
    assert source.recipe() == recipe


def test_an_empty_store_remembers_nothing_and_is_not_created(store, cache):
    assert Source(TINY, store).remembered() is None
    assert not cache.exists()


def test_the_recipe_is_remembered_until_the_weights_file_changes(store, tmp_path, monkeypatch):
    file = tmp_path / "w.safetensors"
    state = timm.create_model("test_resnet").state_dict()
    safetensors.torch.save_file(state, file)
    spec = BackboneSpec.of("test", "test_resnet", weights=file)
    space, recipe = Source(spec, store).open()
    with monkeypatch.context() as patch:
        patch.setattr("featuretl.backbones.backbone.load_spec", lambda *args: pytest.fail("loaded"))
        remembered, again = Source(spec, store).remembered()
        assert (remembered.id, again) == (space.id, recipe)
        assert Source(spec, store).recipe() == recipe
    weight = next(name for name, value in state.items() if value.is_floating_point())
    safetensors.torch.save_file({**state, weight: state[weight] + 1}, file)
    assert Source(spec, store).remembered() is None
    assert Source(spec, store).recipe() != recipe
    file.unlink()
    assert Source(spec, store).remembered() is None


def test_a_loaded_backbone_has_its_recipe_without_the_memo(store):
    backbone = load_backbone("test_resnet", weights="random")
    source = Source(backbone, store)
    assert source.remembered() is None  # the store has no such space yet
    space, recipe = source.open()
    assert recipe == Source(TINY, store).recipe()  # the same weights and output
    found, again = Source(backbone, store).remembered()
    assert (found.id, again) == (space.id, recipe)
