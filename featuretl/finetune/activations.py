"""Sources of activations: the input of the trainable part of a network, in batches.

Every source has one method, `batches`. The views in a batch depend only on the seed, the epoch and
the image, never on threads or earlier batches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from featuretl._core.precision import full_precision
from featuretl._core.text import printable
from featuretl.backbones.backbone import Backbone
from featuretl.backbones.devices import room_on, to_device
from featuretl.backbones.views import STRENGTHS, Strength, View, draw
from featuretl.exceptions import ImageError
from featuretl.extraction.extraction import Extraction
from featuretl.extraction.source import Source
from featuretl.finetune.trunk import Trunk, from_rows
from featuretl.images.inputs import name_of, read
from featuretl.store.lookup import MISSING, keys_array
from featuretl.store.store import EmbeddingStore

_SHARE_OF_DEVICE = 0.5  # of its free memory, that cached activations may take
_ROWS_PER_COPY = 4096

Parts = Sequence[np.ndarray]
Batches = Generator[torch.Tensor, None, None]


class CachedActivations:
    """Cached activations, of `shape` each, of views of every image; the first is not augmented."""

    def __init__(
        self, views: list[Extraction], shape: tuple[int, ...], noise: float, device: torch.device
    ) -> None:
        self._views, self._shape, self._noise, self._device = views, shape, noise, device

    def batches(self, parts: Parts, seed: Sequence[int] | None = None) -> Batches:
        """Yield the activations of each part (indices of images), augmented if a seed is given."""
        rng = None if seed is None else np.random.default_rng(seed)
        for part in parts:
            yield from_rows(self._rows(part, rng), self._shape)

    def _rows(self, part: np.ndarray, rng: np.random.Generator | None) -> torch.Tensor:
        chosen = np.zeros(len(part), int)
        if rng is not None:
            chosen = rng.integers(len(self._views), size=len(part))
        if self._on_device is None:
            rows = to_device(torch.from_numpy(self._gathered(part, chosen)), self._device)
        else:
            rows = self._on_device[torch.from_numpy(chosen), torch.from_numpy(part)].float()
        if rng is not None and self._noise:
            generator = torch.Generator(self._device).manual_seed(int(rng.integers(2**31)))
            noise = torch.randn(rows.shape, generator=generator, device=self._device)
            rows *= 1 + self._noise * noise
        return rows

    def _gathered(self, part: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        rows = np.empty((len(part), self._views[0].shape[1]), np.float32)
        for view in np.unique(chosen):
            rows[chosen == view] = self._views[view].rows(part[chosen == view])
        return rows

    @cached_property
    def _on_device(self) -> torch.Tensor | None:
        """All views, float16 (views, n, d), on a GPU with room for them."""
        shape = len(self._views), *self._views[0].shape
        if 2 * math.prod(shape) > room_on(self._device) * _SHARE_OF_DEVICE:
            return None
        views = torch.empty(shape, dtype=torch.float16, device=self._device)
        for to, view in zip(views, self._views, strict=True):
            chunks = view.chunks(_ROWS_PER_COPY)
            for where in to.split(_ROWS_PER_COPY):
                where.copy_(torch.from_numpy(next(chunks)))
        return views


class FreshActivations:
    """Activations that are computed from the images for every batch.

    Without a `trunk`, a batch is the input of the whole network. A callable `augment` maps a PIL
    image to a PIL image; the consumer's thread calls it, in the order of the images.
    """

    def __init__(
        self,
        images: Sequence[Any],
        backbone: Backbone,
        trunk: nn.Module | None,
        augment: Strength | Callable[[Any], Any],
        n_jobs: int,
    ) -> None:
        self._images, self._backbone, self._trunk = images, backbone, trunk
        self._augment, self._n_jobs = augment, n_jobs

    def batches(self, parts: Parts, seed: Sequence[int] | None = None) -> Batches:
        """Yield activations as `CachedActivations` does; ImageError if an image is unreadable."""
        with ThreadPoolExecutor(self._n_jobs, "featuretl") as pool:
            prepared = _prefetch(pool, lambda index: self._read(index, seed), parts)
            for part in parts:
                yield self._activations([next(prepared) for _ in part])

    def _read(self, index: int, seed: Sequence[int] | None) -> Any:
        try:
            return self._prepare(read(self._images[index]), index, seed)
        except ImageError as error:
            name = name_of(self._images[index], index)
            raise ImageError(f"{name}: {printable(error)}; fix it or leave it out.") from error

    def _prepare(self, content: Any, index: int, seed: Sequence[int] | None) -> Any:
        """Return the network's input, or the pixels if `augment` is callable."""
        pixels = content.pixels(least_side=self._backbone.preprocessing.least_side)
        view = View()
        if seed is not None:
            if callable(self._augment):
                return pixels
            if self._augment.views > 1:
                view = draw(self._augment, np.random.default_rng([*seed, index]))
        return view(pixels, self._backbone.preprocessing)

    def _activations(self, prepared: list[Any]) -> torch.Tensor:
        inputs = [self._augmented(x) if isinstance(x, np.ndarray) else x for x in prepared]
        module = self._trunk or nn.Identity()
        with torch.no_grad(), full_precision():
            return module(self._backbone.batch(inputs)).float()

    def _augmented(self, pixels: np.ndarray) -> torch.Tensor:
        image = self._augment(Image.fromarray(pixels))  # type: ignore[operator]
        return self._backbone.prepare(np.asarray(image.convert("RGB")))


class StoredActivations(FreshActivations):
    """Activations for prediction: read from the store, or computed and not cached."""

    def __init__(
        self, images: Sequence[Any], trunk: Trunk, store: EmbeddingStore | None, n_jobs: int
    ) -> None:
        super().__init__(images, trunk.backbone, trunk.module, STRENGTHS["none"], n_jobs)
        self._stored = trunk
        known = Source(trunk, store, "auto").remembered() if store else None
        self._space = known[0] if known else None

    def _prepare(self, content: Any, index: int, seed: Any) -> int | torch.Tensor:
        """Return the position of the activation in the store, or the network's input."""
        if self._space is not None:
            found = int(self._space.find(keys_array([content.key]))[0])
            if found != MISSING:
                return found
        least_side = self._stored.preprocessing.least_side
        return self._stored.prepare(content.pixels(least_side=least_side))

    def _activations(self, prepared: list[Any]) -> torch.Tensor:
        found = np.array([isinstance(item, int) for item in prepared])
        rows = np.empty((len(prepared), self._stored.n_features), np.float32)
        if found.any() and self._space is not None:
            rows[found] = self._space.gather(np.array([x for x in prepared if isinstance(x, int)]))
        if not found.all():
            rows[~found] = self._stored.embed([x for x in prepared if not isinstance(x, int)])
        return from_rows(torch.from_numpy(rows).to(self._stored.device), self._stored.shape)


Activations = CachedActivations | FreshActivations


def split_rows(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split rows (n,) into equal parts of at most `size`, so that no part has a single row."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


def _prefetch(
    pool: ThreadPoolExecutor, prepare: Callable[[int], Any], parts: Parts
) -> Iterator[Any]:
    """Yield ``prepare(index)`` of all indices in order; two parts are in progress at a time."""
    window: deque[Future[Any]] = deque()
    for number, part in enumerate(parts):
        window.extend(pool.submit(prepare, int(index)) for index in part)
        while number and len(window) > 2 * len(part):
            yield window.popleft().result()
    while window:
        yield window.popleft().result()
