"""KeyIndex gives the same results as a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featuretl.store.format import KEY_DTYPE
from featuretl.store.lookup import MISSING, KeyIndex, keys_array

# Few distinct keys, so that they repeat; zeros at either end, which S32 could mistake for padding.
KEYS = [bytes([a] * 16 + [b] * 16) for a in (0, 1, 255) for b in (0, 1, 255)]


@given(st.lists(st.lists(st.sampled_from(KEYS), max_size=9), max_size=12))
def test_the_first_location_of_a_key_wins(batches):
    index, model, location = KeyIndex(), {}, 0
    for batch in batches:
        index.add(keys_array(batch), np.arange(location, location + len(batch)))
        for key in batch:
            model.setdefault(key, location)
            location += 1
    expected = [model.get(key, MISSING) for key in KEYS]
    assert index.find(keys_array(KEYS)).tolist() == expected


def test_keys_whose_hashes_begin_alike():
    keys = np.frombuffer(np.random.default_rng(0).bytes(32 * 300), KEY_DTYPE)
    index = KeyIndex()
    index._factors = np.array([1 << 61, 0, 0, 0], np.uint64)  # 8 hashes
    index.add(keys[:200], np.arange(200))
    index.add(keys[:250:-1], np.arange(1000, 1049))
    np.testing.assert_array_equal(index.find(keys[:200]), np.arange(200))
    np.testing.assert_array_equal(index.find(keys[:250:-1]), np.arange(1000, 1049))
    assert (index.find(keys[200:251]) == MISSING).all()


def test_many_keys_in_few_runs():
    keys = np.frombuffer(np.random.default_rng(0).bytes(32 * 50_000), KEY_DTYPE)
    index = KeyIndex()
    for start in range(0, 50_000, 500):
        index.add(keys[start : start + 500], np.arange(start, start + 500))
    assert len(index.keys()) == 50_000
    assert len(index._runs) < 20
    np.testing.assert_array_equal(index.find(keys), np.arange(50_000))
    assert (index.find(keys_array([b"\1" * 32])) == MISSING).all()
