"""Trunk: the frozen lower part of a backbone, whose activations are kept like embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featuretl.backbones.backbone import Backbone
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.views import Strength, cached_view, view_recipe
from featuretl.exceptions import BackboneError


class Trunk:
    """The part of a backbone below its last blocks; `extract` takes it in place of a backbone.

    An activation is kept as one float16 row, channels last where it is a map: (h, w, c) flattened,
    or (tokens, c) for a transformer. `module` is the lower part of ``backbone.cut(n_blocks)``;
    `view` and `strength` are those of `featuretl.backbones.views.cached_view`.
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
        self._runtime = TorchRuntime(_Rows(module))

    @property
    def n_features(self) -> int:
        """Numbers in an activation."""
        return int(np.prod(self.shape))

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.backbone.device

    @property
    def weights_file(self) -> Path | None:
        """The file that the weights were loaded from, where there is one."""
        return self.backbone.weights_file

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
        """Return what the network sees of pixels (h, w, 3), uint8, in this trunk's view."""
        view = cached_view(self._view, self._strength, pixels)
        return view(pixels, self.backbone.preprocessing)

    def batch(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the network's input, float32 (n, 3, height, width), of prepared images."""
        return self.backbone.batch(inputs)

    def embed(self, inputs: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the activations, float16 (n, n_features), of prepared images."""
        return self.forward(self.batch(inputs))

    def forward(self, batch: torch.Tensor) -> np.ndarray:
        """Return the activations, float16 (n, n_features), of the network's input."""
        rows = self._runtime(batch)
        if not np.isfinite(rows).all():
            raise BackboneError(
                f"The activations of {self.backbone.spec.name!r} before block "
                f"{self.backbone.blocks[-self._n_blocks]!r} do not fit into float16; set "
                "cache_trunk=False."
            )
        return rows


class _Rows(torch.nn.Module):
    """A trunk whose activations are rows, as they are kept."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the activations, float16 (n, d)."""
        return to_rows(self.trunk(batch)).half()


def run(
    module: torch.nn.Module, backbone: Backbone, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return what a frozen module gives for prepared images, float32, on the backbone's device."""
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        return module(backbone.batch(inputs)).float()


def activation_shape(backbone: Backbone, module: torch.nn.Module) -> tuple[int, ...]:
    """Return the shape of one activation as torch has it: (c, h, w), or (tokens, c)."""
    blank = torch.zeros((1, *backbone.preprocessing.input_size), device=backbone.device)
    with torch.no_grad():
        return tuple(module(blank).shape[1:])


def to_rows(activations: torch.Tensor) -> torch.Tensor:
    """Return activations (n, ...) as rows (n, d), channels last where they are maps."""
    if activations.ndim == 4:
        activations = activations.permute(0, 2, 3, 1)
    return activations.flatten(1)


def from_rows(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Undo `to_rows`: activations (n, *shape), channels last in memory where they are maps."""
    if len(shape) == 3:
        c, h, w = shape
        return rows.view(-1, h, w, c).permute(0, 3, 1, 2)
    return rows.view(-1, *shape)
