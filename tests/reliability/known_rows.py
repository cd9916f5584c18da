"""Verifiable embeddings: every row is a function of its key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from featuretl import EmbeddingStore
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.space import StoredSpace

D = 24
RECIPE = {"backbone": {"name": "known"}, "output": {"n_features": D}}
GOLDEN = np.arange(1, D + 1, dtype=np.float32)


def key(number: int) -> bytes:
    """Return the key of image `number`."""
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> np.ndarray:
    """Return the embedding of image `number`, derived from its key: finite float32 (D,)."""
    return np.frombuffer(key(number) * (D // 8), "<u4").astype(np.float32)


def open_space(store: EmbeddingStore) -> StoredSpace:
    """Open the space of the known rows for writing."""
    return store.open_space(RECIPE, GOLDEN, {})


def take(space: StoredSpace, numbers: Iterable[int]) -> list[int]:
    """Claim images; return those that the caller has to embed."""
    return [number for number in numbers if space.claim([key(number)])[0]]


def append(space: StoredSpace, numbers: list[int]) -> None:
    """Append the embeddings of claimed images."""
    if numbers:
        space.append([key(number) for number in numbers], np.stack([row(n) for n in numbers]))


def put(store: EmbeddingStore, numbers: Iterable[int]) -> list[int]:
    """Embed and commit the missing images; return them."""
    with open_space(store) as space:
        taken = take(space, numbers)
        append(space, taken)
    return taken


def present(store: EmbeddingStore, numbers: Iterable[int]) -> set[int]:
    """Return the images that have an embedding; check every bit of it."""
    space = store.find_space(RECIPE)
    return set() if space is None else found_in(space, list(numbers))


def found_in(space: StoredSpace, numbers: list[int]) -> set[int]:
    """Return the images that have an embedding in `space`; check every bit of it."""
    locations = space.find(keys_array([key(number) for number in numbers]))
    rows = space.gather(locations)
    found = set()
    for number, location, got in zip(numbers, locations, rows, strict=True):
        if location != MISSING:
            assert got.tobytes() == row(number).tobytes(), f"image {number} has a wrong row"
            found.add(number)
    return found


def chunks(numbers: list[int], size: int) -> Iterator[list[int]]:
    """Split `numbers` into lists of at most `size`."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
