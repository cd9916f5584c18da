"""What sound and video share: several pictures through a backbone, pooled over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from featuretl.store.keys import Recipe

POOLINGS = ("mean", "mean+std")

_PICTURES_AT_ONCE = 32


def recipe_of(backbone: Any, pooling: str, what: str, **facts: Any) -> Recipe:
    """Return the recipe of pictures through a backbone, pooled over `what`, and of other facts."""
    recipe = backbone.recipe
    output = recipe["output"]
    pooled = f"{output['pooling']}, {pooling} of {what}"
    return {**recipe, **facts, "output": {**output, "pooling": pooled}}


def embed(backbone: Any, items: Sequence[Sequence[Any]], pooling: str) -> np.ndarray:
    """Return one embedding per item, float32 (n, d), or (n, 2 d) with "mean+std".

    Parameters
    ----------
    backbone : Backbone
    items : sequence of n sequences
        The pictures of each, one or more, as the backbone prepared them.
    pooling : {"mean", "mean+std"}
        Over the pictures of an item; "std" is the population's, 0 for a single one.
    """
    pictures = list(itertools.chain.from_iterable(items))
    rows = np.concatenate(
        [
            backbone.embed(pictures[start : start + _PICTURES_AT_ONCE])
            for start in range(0, len(pictures), _PICTURES_AT_ONCE)
        ]
    )
    ends = np.cumsum([len(item) for item in items])
    return np.stack([_pooled(part, pooling) for part in np.split(rows, ends[:-1])])


def _pooled(rows: np.ndarray, pooling: str) -> np.ndarray:
    mean = rows.mean(axis=0)
    return np.concatenate([mean, rows.std(axis=0)]) if pooling == "mean+std" else mean
