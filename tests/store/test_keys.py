"""Ids of spaces depend on the recipe's content only, and are the same in every process."""

from __future__ import annotations

import json
import zlib

import pytest

from featuretl.store.keys import canonical_json, json_checksum, space_id

RECIPE = {"output": {"n_features": 3, "layers": ["a"]}, "version": 1, "scale": 0.1}


def test_the_order_of_keys_does_not_matter_and_the_order_of_lists_does():
    turned = {name: RECIPE[name] for name in reversed(RECIPE)}
    assert list(turned) != list(RECIPE)
    assert canonical_json(turned) == canonical_json(RECIPE)
    assert space_id(turned, 0) == space_id(RECIPE, 0)
    assert canonical_json([1, 2]) != canonical_json([2, 1])


def test_the_text_is_ascii_that_reads_back_as_the_same_value():
    value = {"ä\n": ["\U0001f98a", 1e-300, 0.1, -0.0, None, True]}
    text = canonical_json(value)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, -float("inf")]])
def test_values_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


def test_every_change_of_the_recipe_and_every_generation_has_its_own_id():
    changed = [
        {**RECIPE, "version": 2},
        {**RECIPE, "version": 1.0},  # another text, hence another id
        {**RECIPE, "output": {"n_features": 3, "layers": []}},
        {**RECIPE, "extra": None},
    ]
    ids = {space_id(recipe, 0) for recipe in [RECIPE, *changed]} | {space_id(RECIPE, 1)}
    assert len(ids) == 6
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in ids)


def test_ids_and_checksums_stay_what_they_are_in_stores_on_disk():
    assert space_id({"a": 1}, 0) == (
        "e315d1db9a5b80b6fe58fea5fc99eaea5cb2f3468592f5bd37de028946541fe6"
    )
    assert json_checksum({"b": 1, "a": 2}) == zlib.crc32(b'{"a":2,"b":1}')
