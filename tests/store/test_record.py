"""The record of a space: damage is reported, and another golden embedding starts a generation."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from known_rows import GOLDEN, RECIPE, key, open_space, put

from featuretl import EmbeddingStore, extract
from featuretl.exceptions import FeatureTLWarning, StoreError
from featuretl.store.format import DamagedFileError
from featuretl.store.keys import space_id
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.record import agreeing_record, agrees, generations, golden_of, parse_record
from featuretl.store.store import resolve_store
from featuretl.store.verify import verify


@pytest.mark.parametrize(
    ("found", "put_there"), [('"id": "', '"id": "0'), ('"n_features": 24', '"n_features": 25'),
                             ('"golden": "', '"golden": "='), ('"golden": "', '"golden": "AAAA')]
)  # fmt: skip
def test_a_damaged_record_of_a_space_is_named(store, found, put_there):
    put(store, [1])
    record = store.find_space(RECIPE).folder / "space.json"
    record.write_text(record.read_text().replace(found, put_there))
    for use in (open_space, lambda store: store.find_space(RECIPE)):
        with pytest.raises(StoreError, match=r"space\.json.* is damaged"):
            use(store)


def test_a_store_of_a_newer_format_is_refused(store):
    put(store, [1])
    space = store.find_space(RECIPE)
    record = space.folder / "space.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="upgrade featuretl"):
        store.info()
    record.write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        store.find_space(RECIPE)


def test_another_golden_embedding_starts_a_new_generation(store):
    put(store, [1])
    drifted = GOLDEN[::-1].copy()
    with pytest.warns(FeatureTLWarning, match="golden image"):
        new = store.open_space(RECIPE, drifted, {})
    assert new.find(keys_array([key(1)])) == MISSING
    assert store.open_space(RECIPE, drifted, {}).id == new.id
    assert store.open_space(RECIPE, GOLDEN * 1.000001, {}).id != new.id
    assert store.find_space(RECIPE).id == new.id  # the newest


@pytest.mark.parametrize("lost", ["unlinked", "emptied"])
def test_a_lost_record_names_the_repair_which_helps(cache, pixels, lost):
    images = [pixels[i : i + 64, :64].copy() for i in range(4)]
    store = resolve_store(cache, "t")
    extract(images, store=store)
    record = next(cache.glob("spaces/*/space.json"))
    record.unlink()
    if lost == "emptied":
        record.write_text("")
    for work in (lambda: extract(images, store=store), store.info):
        with pytest.raises(StoreError, match="featuretl cache verify --repair"):
            work()
    # The default cache is optional.
    with pytest.warns(FeatureTLWarning, match="cache verify --repair"):
        assert extract(images, store=resolve_store("auto", "t")).ok.all()
    assert len(verify(store, repair=True)) == 1
    assert extract(images, store=EmbeddingStore(cache)).statistics.embedded == 4


def new_record(golden=GOLDEN):
    """Return the record of the first space of the known rows."""
    record, exists = agreeing_record(lambda identity: None, RECIPE, golden, {"torch": "1"})
    assert not exists
    return record


def test_no_flipped_byte_or_truncation_changes_what_a_record_says():
    record = new_record()
    path = Path("spaces", record["id"], "space.json")
    data = json.dumps(record, indent=1).encode()
    content = parse_record(data, path)
    assert content == {name: record[name] for name in record if name != "checksum"}
    for end in range(len(data)):
        with pytest.raises(DamagedFileError, match=r"space\.json"):
            parse_record(data[:end], path)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1
        with contextlib.suppress(DamagedFileError, StoreError):
            found = parse_record(bytes(flipped), path)
            assert {name: found[name] for name in content} == content


def test_a_record_belongs_to_its_folder_and_may_lack_a_checksum():
    record = new_record()
    path = Path("spaces", record["id"], "space.json")
    with pytest.raises(DamagedFileError, match="does not describe this space"):
        parse_record(json.dumps(record).encode(), Path("spaces", "ab" * 32, "space.json"))
    del record["checksum"]  # as in the first stores
    assert parse_record(json.dumps(record).encode(), path) == record


def test_golden_embeddings_agree_up_to_rounding_and_scale_and_not_in_another_width():
    record = new_record()
    np.testing.assert_array_equal(golden_of(record), GOLDEN)
    noise = np.random.default_rng(0).normal(size=len(GOLDEN)).astype(np.float32)
    for other, expected in [
        (GOLDEN, True),
        (GOLDEN * 2, True),
        (GOLDEN + 1e-4 * noise, True),
        (GOLDEN + 0.5 * noise, False),
        (-GOLDEN, False),
        (GOLDEN[:-1], False),
        (np.append(GOLDEN, 0).astype(np.float32), False),
        (np.full_like(GOLDEN, np.nan), False),
    ]:
        assert agrees(record, other) is expected


def test_of_several_agreeing_generations_the_newest_is_used():
    first = new_record()
    second = {**first, "id": space_id(RECIPE, 1), "generation": 1}
    third = {**new_record(GOLDEN[::-1]), "id": space_id(RECIPE, 2), "generation": 2}
    known = {record["id"]: record for record in (first, second, third)}
    assert generations(known.get, RECIPE) == [first, second, third]
    assert agreeing_record(known.get, RECIPE, GOLDEN, {}) == (second, True)
    del known[second["id"]]
    assert generations(known.get, RECIPE) == [first]  # without gaps
