"""MediumEncoder: from items to embeddings with a medium."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl.exceptions import InputError, ItemError
from featuretl.extraction.image_encoder import RECIPE_VERSION
from featuretl.images.decode import describe, settled
from featuretl.images.inputs import Decoder, is_file, name_of
from featuretl.media.medium import Medium
from featuretl.store.keys import Recipe

_facts = attrgetter("st_size", "st_mtime_ns", "st_ino")


@dataclass(frozen=True)
class _Item:
    """An item, its key, and its file's state before (`seen`) and after computing the key."""

    item: Any
    key: bytes
    digest: bytes  # the key
    state: os.stat_result | None  # None unless the file is old enough to be recognised by its state
    seen: os.stat_result | None


class MediumEncoder:
    """The engine's interface to a medium, whose results it checks."""

    largest_batch = 32
    pipelined = ()  # a medium chooses its own device
    preparation = None
    files = ()  # no file determines the recipe

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._name = type(medium).__name__
        self.choice = (self._name, None)

    def read(self, image: Any, stage: Callable[[str], Any]) -> _Item:
        """Compute the key of one item. Raises ItemError."""
        with stage("hash"):
            before = self._state(image)
            key = _call_medium(self._medium.digest, image)
            after = self._state(image)
        if not isinstance(key, bytes) or len(key) != 32:
            raise InputError(f"'digest' of {self._name} must return 32 bytes; got {key!r:.60}.")
        known = before is not None and after is not None and settled(before, after, after.st_size)
        return _Item(image, key, key, after if known else None, before)

    def prepare(self, content: Any, decoder: Decoder, stage: Callable[[str], Any]) -> Any:
        """Return the input of `forward` for one item. Raises ItemError."""
        with stage("decode"):
            ready = self._prepare_item(content.item)
        after = self._state(content.item) if content.seen else None
        if content.seen and (after is None or _facts(after) != _facts(content.seen)):
            raise ItemError("it changed while it was read; try again when nothing writes to it")
        return ready

    def _prepare_item(self, item: Any) -> Any:
        ready = _call_medium(self._medium.prepare, item)
        if ready is None:
            raise InputError(f"'prepare' of {self._name} must return something; got None.")
        return ready

    def file_of(self, image: Any) -> str | None:
        """Return the path that an item is, if the SHA-256 of the file is its key, else None."""
        return os.fspath(image) if self._medium.files and is_file(image) else None

    def name_of(self, image: Any, index: int) -> str:
        """Return the name of an item for messages; safe to print."""
        if self.file_of(image) is not None:
            return name_of(image, index)
        return f"item {index} ({printable(type(image).__name__)})"

    def embed(self, inputs: list[Any], stage: Callable[[str], Any]) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of prepared items."""
        with stage("forward"):
            rows = np.ascontiguousarray(self._medium.forward(inputs), np.float32)
        if rows.ndim != 2 or len(rows) != len(inputs):
            raise InputError(
                f"'forward' of {self._name} must return a row per item, ({len(inputs)}, d); got "
                f"shape {rows.shape}."
            )
        return rows

    def choose_runtime(
        self, pool: ThreadPoolExecutor, n_threads: int, n_images: int
    ) -> tuple[str, float | None]:
        """Return the medium's name as the runtime, and None as the agreement."""
        return self.choice

    @cached_property
    def golden(self) -> np.ndarray:
        """The golden item's embedding (d,)."""
        return self.embed([self._prepare_item(self._medium.golden)], nullcontext)[0]

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the embeddings (JSON)."""
        mine = dict(self._medium.recipe)
        output = {"layers": [], "pooling": "", **mine.get("output", {})}
        return {
            "version": RECIPE_VERSION,
            "backbone": {"name": self._name, "tensors": None},
            **mine,
            "output": {**output, "dtype": "float32", "n_features": len(self.golden)},
        }

    @property
    def memo_facts(self) -> dict[str, Any]:
        """Facts that determine the recipe except for the size of an embedding."""
        return {"medium": self._name, "facts": self._medium.recipe, "recipe": RECIPE_VERSION}

    def _state(self, item: Any) -> os.stat_result | None:
        try:
            return Path(item).stat() if self.file_of(item) is not None else None
        except (OSError, ValueError):
            return None


def _call_medium(work: Callable[[Any], Any], item: Any) -> Any:
    """Return `work(item)`; turn an OSError or ValueError about the item into an ItemError."""
    try:
        return work(item)
    except ItemError:
        raise
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ItemError(words or describe(error)) from error
