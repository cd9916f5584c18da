"""The common part of sound and video: several pictures per item, embedded and pooled over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from featuretl.store.keys import Recipe

POOLINGS = ("mean", "mean+std")

_BATCH_PICTURES = 32


class Pictures:
    """Base class of media that embed an item as several pictures; subclasses are dataclasses."""

    backbone: Any
    pooling: str

    files = True

    def forward(self, inputs: Sequence[Sequence[Any]]) -> np.ndarray:
        """Return one embedding per item: float32 (n, d), or (n, 2 d) with "mean+std"."""
        backbone = self._backbone
        pictures = list(itertools.chain.from_iterable(inputs))
        starts = range(0, len(pictures), _BATCH_PICTURES)
        batches = (pictures[start : start + _BATCH_PICTURES] for start in starts)
        rows = np.concatenate([backbone.embed(batch) for batch in batches])
        ends = np.cumsum([len(item) for item in inputs])
        parts = np.split(rows, ends[:-1])
        means = np.stack([part.mean(axis=0) for part in parts])
        if self.pooling == "mean":
            return means
        return np.hstack([means, np.stack([part.std(axis=0) for part in parts])])

    @property
    def _backbone(self) -> Any:
        from featuretl.backbones.backbone import as_backbone

        return as_backbone(type(self).__name__, self.backbone)

    def _recipe(self, pooled_over: str, **facts: Any) -> Recipe:
        """Return the backbone's recipe with the pooling and other facts."""
        recipe = self._backbone.recipe
        output = recipe["output"]
        pooled = f"{output['pooling']}, {self.pooling} of {pooled_over}"
        return {**recipe, **facts, "output": {**output, "pooling": pooled}}
