"""From a network and one of its values to a map of evidence over the part of an image it sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from featuretl.backbones.embedding import Embedding
from featuretl.exceptions import BackboneError
from featuretl.explanation.rollout import attention_layers, patch_grid, rollout
from featuretl.networks.network import Network

CAM = "class activation map"
HIRESCAM = "HiResCAM"
ROLLOUT = "gradient attention rollout"

_ROUNDING = 1e-4


class Evidence(NamedTuple):
    """`heat`, float32 (h, w), and the `method` that made it; `bias` is None unless it is exact."""

    heat: np.ndarray
    method: str
    bias: float | None


def evidence(network: Network, batch: torch.Tensor, weight: torch.Tensor) -> Evidence:
    """Return the evidence for ``values @ weight``, weight (k,), in one image (1, 3, height, width).

    Raises BackboneError if the network has neither maps nor attention that can be read.
    """
    if layers := attention_layers(network.embedding.model):
        return Evidence(rollout(network, batch, weight, layers), ROLLOUT, None)
    embedding = network.embedding
    with torch.no_grad():
        outputs = embedding.outputs(batch)
    outputs = {index: output.detach().requires_grad_() for index, output in outputs.items()}
    pooled = embedding.pooled(outputs)
    slopes = torch.autograd.grad(
        (network.head(pooled) @ weight).sum(), list(outputs.values()), allow_unused=True
    )
    # The mean over positions, not the sum, is the share of the value.
    heats = [
        product.sum(1, keepdim=True) * product[0, 0].numel()
        for (index, x), slope in zip(outputs.items(), slopes, strict=True)
        if slope is not None
        for product in [_as_map(x.detach() * slope, embedding, is_final=index is None)]
    ]
    finest = max((tuple(heat.shape[2:]) for heat in heats), key=np.prod)
    heat = torch.stack([_at_size(heat, finest) for heat in heats]).sum(0)
    is_exact = (
        network.head.is_affine
        and _is_average(embedding, outputs, pooled)
        and not any(
            big % small for h in heats for big, small in zip(finest, h.shape[2:], strict=True)
        )
    )
    zero = network.head(torch.zeros_like(pooled)) @ weight
    return Evidence(
        heat[0, 0].cpu().numpy(), CAM if is_exact else HIRESCAM, zero.item() if is_exact else None
    )


def _as_map(x: torch.Tensor, embedding: Embedding, is_final: bool) -> torch.Tensor:
    """Return the output of a layer as a map (1, c, h, w). Raises BackboneError if it is none."""
    if x.ndim == 4:
        channels_last = is_final and getattr(embedding.model, "output_fmt", "NCHW") == "NHWC"
        return x.permute(0, 3, 1, 2) if channels_last else x
    grid = patch_grid(embedding.model)
    if x.ndim == 3 and grid is not None and x.shape[1] == grid[0] * grid[1]:
        return x.transpose(1, 2).unflatten(2, grid)
    raise BackboneError(
        "explain needs maps, or attention over all patches, and this backbone has neither; use a "
        "convolutional network or a plain vision transformer."
    )


def _at_size(heat: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Repeat the cells of a heat (1, 1, h, w): where `size` is a multiple, the mean stays."""
    return nn.functional.interpolate(heat, size, mode="nearest-exact")


def _is_average(embedding: Embedding, outputs: dict, pooled: torch.Tensor) -> bool:
    """Return whether the embedding is the mean over positions, however the model pools."""
    average = Embedding(embedding.model, embedding.indices, "avg", False).pooled(outputs)
    return average.shape == pooled.shape and torch.allclose(
        average, pooled, rtol=_ROUNDING, atol=_ROUNDING
    )
