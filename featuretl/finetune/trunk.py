"""The frozen lower part of a backbone, whose activations are cached like embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featuretl.backbones.backbone import Backbone
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.views import Strength, prepare_view, view_recipe
from featuretl.exceptions import BackboneError


class Trunk:
    """The part of a backbone below its last blocks, which `extract` accepts as a backbone.

    An activation is cached as one float16 row: a map is flattened as (h, w, c), a transformer's
    output as (tokens, c). `view` and `strength` are those of `cached_view`.
    """

    def __init__(
        self,
        backbone: Backbone,
        module: torch.nn.Module,
        n_blocks: int,
        view: int,
        strength: Strength,
    ) -> None:
        self.backbone, self.module, self._n_blocks = backbone, module, n_blocks
        self._view, self._strength = view, strength
        self.shape = activation_shape(backbone, module)
        self.preprocessing = backbone.preprocessing
        self.forward = _Activations(module, backbone.spec.name, backbone.blocks[-n_blocks])

    @property
    def n_features(self) -> int:
        """The number of values in an activation."""
        return int(np.prod(self.shape))

    @property
    def device(self) -> torch.device:
        """The device of the backbone."""
        return self.backbone.device

    @property
    def files(self) -> list[Path]:
        """The files that the network and its weights come from."""
        return self.backbone.files

    @property
    def recipe(self) -> dict[str, Any]:
        """The trunk's part of a recipe (JSON)."""
        output = {
            "layers": [f"input of {self.backbone.blocks[-self._n_blocks]}"],
            "pooling": "none",
            "view": view_recipe(self._view, self._strength),
            "shape": list(self.shape),
            "layout": "channels last",
            "dtype": "float16",
            "n_features": self.n_features,
        }
        return self.backbone.recipe | {"output": output}

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Return the preprocessed view of pixels, uint8 (h, w, 3)."""
        return self.preparation(pixels)

    @property
    def preparation(self) -> Callable[[np.ndarray], torch.Tensor]:
        """`prepare` as a function that does not hold the network."""
        return partial(prepare_view, self.preprocessing, self._view, self._strength)

    def batch(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return prepared images as the network's input, float32 (n, 3, height, width)."""
        return self.backbone.batch(inputs)

    def embed(self, inputs: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the activations of prepared images, float16 (n, n_features)."""
        return self.forward(self.batch(inputs))


class _Activations(TorchRuntime):
    """The runtime of a trunk; `name` is the backbone's, and `block` that of the next block."""

    def __init__(self, module: torch.nn.Module, name: str, block: str) -> None:
        super().__init__(_Rows(module))
        self._name, self._block = name, block

    def start(self, batch: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start to compute; return a function that waits for the activations, float16 (n, d)."""
        wait = super().start(batch)

        def checked() -> np.ndarray:
            rows = wait()
            if not np.isfinite(rows).all():
                raise BackboneError(
                    f"The activations of {self._name!r} before block {self._block!r} do not fit "
                    "into float16; set cache_trunk=False."
                )
            return rows

        return checked


class _Rows(torch.nn.Module):
    """A trunk that returns the rows (n, d), float16, that are cached."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        activations = self.trunk(batch)
        if activations.ndim == 4:
            activations = activations.permute(0, 2, 3, 1)
        return activations.flatten(1).half()


def activation_shape(backbone: Backbone, module: torch.nn.Module) -> tuple[int, ...]:
    """Return the shape of one activation in PyTorch's layout: (c, h, w), or (tokens, c)."""
    blank = torch.zeros((1, *backbone.preprocessing.input_size), device=backbone.device)
    with torch.no_grad():
        return tuple(module(blank).shape[1:])


def from_rows(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return cached rows as activations (n, *shape); maps are channels last in memory."""
    if len(shape) == 3:
        c, h, w = shape
        return rows.view(-1, h, w, c).permute(0, 3, 1, 2)
    return rows.view(-1, *shape)
