"""Items: collections of them, and digests that depend on the content only."""

from __future__ import annotations

import hashlib
import os
from collections import deque

import numpy as np
import pandas as pd
import pytest

from featuretl.exceptions import InputError, ItemError
from featuretl.media.items import as_items, digest_of, digest_of_array, open_item

TEXTS = ["a", "b", ""]
COLLECTIONS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "deque": deque(TEXTS),
    "array": np.array(TEXTS),
    "object array": np.array(TEXTS, object),
    "column of an array": np.array(TEXTS, object)[:, None],
    "series": pd.Series(TEXTS, index=[3, 4, 5]),
    "one-column frame": pd.DataFrame({"text": TEXTS}),
}


@pytest.mark.parametrize("X", COLLECTIONS.values(), ids=COLLECTIONS)
def test_collections_of_items_mean_the_same(X):
    items = as_items(X, "Owner")
    assert list(items) == TEXTS
    assert all(type(item) is str for item in items)


@pytest.mark.parametrize(
    ("X", "got"),
    [
        ("a", "str"),
        (b"a", "bytes"),
        (3, "int"),
        (set(TEXTS), "set"),
        (iter(TEXTS), "list_iterator"),
        (np.zeros(3), r"ndarray of shape \(3,\)"),
        (np.array([TEXTS]), r"ndarray of shape \(1, 3\)"),
        (pd.DataFrame({"a": TEXTS, "b": TEXTS}), r"ndarray of shape \(3, 2\)"),
    ],
)
def test_other_collections_are_refused(X, got):
    with pytest.raises(InputError, match=rf"^X of Owner .*got {got}: "):
        as_items(X, "Owner")


def test_a_file_and_its_bytes_have_one_digest(tmp_path):
    data = bytes(range(256)) * 5000
    path = tmp_path / "file.bin"
    path.write_bytes(data)
    expected = hashlib.sha256(data).digest()
    assert digest_of(data) == digest_of(path) == digest_of(str(path)) == expected
    with open_item(path) as one, open_item(data) as other:
        assert one.read() == other.read() == data


@pytest.mark.parametrize("item", [None, 3, ["a.wav"], np.zeros(3), bytearray(b"a")])
def test_what_is_neither_a_path_nor_bytes_is_named(item):
    with pytest.raises(ItemError, match=f"a {type(item).__name__}; expected a path or bytes"):
        digest_of(item)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(OSError, match="regular file"):
        open_item(tmp_path / "pipe.wav")


def test_arrays_of_equal_values_have_one_digest_whatever_their_layout():
    array = np.arange(24, dtype=np.int16).reshape(4, 6)
    same = [np.asfortranarray(array), array[::-1][::-1], np.repeat(array, 2, axis=1)[:, ::2]]
    assert {digest_of_array(one, 44100) for one in same} == {digest_of_array(array, 44100)}


def test_dtype_shape_values_and_facts_are_parts_of_the_digest():
    array = np.arange(24, dtype=np.int16)
    changed = array.copy()
    changed[-1] += 1
    digests = [
        digest_of_array(array, 44100),
        digest_of_array(array, 48000),
        digest_of_array(array),
        digest_of_array(array.view(np.uint16), 44100),
        digest_of_array(array.reshape(2, 12), 44100),
        digest_of_array(changed, 44100),
    ]
    assert all(len(digest) == 32 for digest in digests)
    assert len(set(digests)) == len(digests)
