"""The end of an extraction enforces the store's size limit, and never fails because of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

from featuretl import EmbeddingStore, ImageEmbedder, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError, ParameterError, StoreError
from featuretl.extraction.source import Source
from featuretl.store import collect as collect_module
from featuretl.store import store as store_module

POOLINGS = ("auto", "max", "avg+max")


def embed(images, pooling, store, **options):
    spec = BackboneSpec.of("test", "test_resnet", weights="random", pooling=pooling)
    return extract(images, spec, store=store, n_jobs=1, **options)


def poolings(store):
    return {info.recipe["output"]["pooling"] for info in store.info()}


@pytest.fixture
def images(pixels):
    return [pixels[:64, 40 * i : 40 * i + 64] for i in range(3)]


def test_what_was_used_longest_ago_goes_when_an_extraction_ends(images, cache):
    for pooling in POOLINGS[:2]:
        embed(images, pooling, EmbeddingStore(cache))
    embed(images, POOLINGS[0], EmbeddingStore(cache))  # a use makes it younger than the other
    one = EmbeddingStore(cache).info()[0].bytes
    limited = EmbeddingStore(cache, max_size=3 * one)
    third = embed(images, POOLINGS[2], limited)  # twice as wide as the others
    assert poolings(limited) == {POOLINGS[0], POOLINGS[2]}
    assert third.to_numpy().shape == (3, 192)
    assert embed(images, POOLINGS[2], limited).statistics.cached == 3


def test_within_the_limit_nothing_goes(images, cache):
    for pooling in POOLINGS:
        embed(images, pooling, EmbeddingStore(cache, max_size=10**6))
    assert poolings(EmbeddingStore(cache)) == set(POOLINGS)


def test_views_count_and_the_recipe_just_extracted_stays_whatever_it_takes(images, cache):
    store = EmbeddingStore(cache, max_size=0)
    extraction = embed(images, "auto", store)
    view = extraction.memmap()
    again = embed(images, "auto", store)
    assert again.statistics.cached == 3
    assert poolings(store) == {"auto"}
    assert list((cache / "views").iterdir()) == []
    np.testing.assert_array_equal(view, again.to_numpy())


def test_without_a_limit_nothing_is_looked_at(images, cache, monkeypatch):
    collected = []
    monkeypatch.setattr(collect_module, "collect", lambda *args, **_: collected.append(args))
    embed(images, "auto", EmbeddingStore(cache))
    embed(images, "auto", None)
    assert not collected


def test_beside_another_extraction_the_limit_waits(images, cache):
    embed(images, "max", EmbeddingStore(cache))
    other = EmbeddingStore(cache)
    with other.locked_shared():
        embed(images, "auto", EmbeddingStore(cache, max_size=0))
        assert poolings(other) == {"auto", "max"}
    embed(images, "auto", EmbeddingStore(cache, max_size=0))
    assert poolings(other) == {"auto"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_another_ones_limit_at_the_opening_of_a_space_costs_time_only(
    images, cache, monkeypatch, when
):
    embed(images[:2], "auto", EmbeddingStore(cache))
    open_space, refused = EmbeddingStore.open_space, []

    def free():
        try:
            collect_module.collect(EmbeddingStore(cache), max_size=0)
        except StoreError as error:
            refused.append(str(error))

    def beside_a_collection(store, *args):
        if when == "before":  # frees the space and its rows, unless it is locked
            free()
        space = open_space(store, *args)
        if when == "after":
            free()
        return space

    monkeypatch.setattr(EmbeddingStore, "open_space", beside_a_collection)
    extraction = embed(images, "auto", EmbeddingStore(cache))
    assert np.isfinite(extraction.to_numpy()).all()
    assert len(refused) == 1
    assert "in use by an extraction" in refused[0]
    assert extraction.statistics.embedded == 1


def test_a_limit_between_planning_and_opening_costs_time_only(images, cache, monkeypatch):
    embed(images[:2], "auto", EmbeddingStore(cache))
    held = Source.held

    def after_a_collection(source):
        collect_module.collect(EmbeddingStore(cache), max_size=0)
        return held(source)

    monkeypatch.setattr(Source, "held", after_a_collection)
    extraction = embed(images, "auto", EmbeddingStore(cache))
    assert np.isfinite(extraction.to_numpy()).all()
    assert extraction.statistics.embedded == 3


def test_a_space_that_is_freed_while_it_is_looked_for_is_not_there(images, cache, monkeypatch):
    extraction = embed(images, "auto", EmbeddingStore(cache))
    read = store_module.read_record

    def too_late(path):
        monkeypatch.setattr(store_module, "read_record", read)
        collect_module.collect(EmbeddingStore(cache), max_size=0)
        return read(path)

    monkeypatch.setattr(store_module, "read_record", too_late)
    assert EmbeddingStore(cache).find_space(extraction.recipe) is None


def test_a_store_that_cannot_be_collected_does_not_fail_an_extraction(images, cache, monkeypatch):
    embed(images, "max", EmbeddingStore(cache))

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(collect_module, "remove_space_folder", refused)
    assert embed(images, "auto", EmbeddingStore(cache, max_size=0)).statistics.embedded == 3


def test_bad_images_do_not_keep_the_limit_from_being_kept(images, cache):
    embed(images, "max", EmbeddingStore(cache))
    with pytest.raises(ImageError):
        embed([*images, b"no image"], "auto", EmbeddingStore(cache, max_size=0))
    assert poolings(EmbeddingStore(cache)) == {"auto"}


def test_the_environment_sets_the_limit(images, cache, monkeypatch):
    assert EmbeddingStore().max_size is None
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "1.5 kb")
    assert EmbeddingStore().max_size == 1500
    assert EmbeddingStore(max_size=7).max_size == 7
    for pooling in POOLINGS[:2]:
        embed(images, pooling, EmbeddingStore())
    assert poolings(EmbeddingStore()) == {POOLINGS[1]}
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "")
    assert EmbeddingStore().max_size is None


@pytest.mark.parametrize("size", ["20", "GB", "-1GB", "20XB", "unlimited"])
def test_a_limit_that_is_no_size_is_one_sentence(monkeypatch, size):
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", size)
    with pytest.raises(ParameterError, match=f"FEATURETL_CACHE_MAX_SIZE: '{size}' is not a number"):
        EmbeddingStore()
    code = "from featuretl_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "cache", "info"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The environment variable FEATURETL_CACHE_MAX_SIZE: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("value", [-1, 1.5, "20GB", True])
def test_a_parameter_that_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(ParameterError, match="'max_size' parameter of EmbeddingStore"):
        EmbeddingStore(max_size=value)


def test_a_store_travels_with_its_limit(cache, monkeypatch):
    for store in (EmbeddingStore(cache), EmbeddingStore(cache, max_size=0)):
        for other in (pickle.loads(pickle.dumps(store)), copy.deepcopy(store), eval(repr(store))):
            assert (other.path, other.max_size) == (store.path, store.max_size)
        assert clone(ImageEmbedder(cache=store)).cache.max_size == store.max_size
    assert repr(EmbeddingStore(cache)) == f"EmbeddingStore({str(cache)!r})"
    monkeypatch.setenv("FEATURETL_CACHE_MAX_SIZE", "1kB")
    data = pickle.dumps(EmbeddingStore(cache))
    monkeypatch.delenv("FEATURETL_CACHE_MAX_SIZE")
    assert pickle.loads(data).max_size == 1000
