"""Maps of evidence for a value of a network: class activation maps and attention rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from featuretl._core.precision import full_precision
from featuretl.backbones.embedding import Embedding, patch_grid, usual_pooling
from featuretl.exceptions import BackboneError
from featuretl.explanation.explanation import CAM, HIRESCAM, ROLLOUT, Evidence
from featuretl.networks.network import Network

_ROUNDING = 1e-4


def evidence(network: Network, batch: torch.Tensor, weight: np.ndarray) -> Evidence:
    """Return the evidence for ``values @ weight``, weight (k,), in one image (1, 3, h, w)."""
    with full_precision():
        return _evidence(network, batch, torch.from_numpy(weight).to(batch.device))


def _evidence(network: Network, batch: torch.Tensor, weight: torch.Tensor) -> Evidence:
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
    # Multiplied by the number of positions, so that the mean of the map is its part of the value.
    heats = [
        product.sum(1, keepdim=True) * product[0, 0].numel()
        for (index, x), slope in zip(outputs.items(), slopes, strict=True)
        if slope is not None
        for product in [_as_map(x.detach() * slope, embedding, is_final=index is None)]
    ]
    finest = max((tuple(heat.shape[2:]) for heat in heats), key=np.prod)
    # Repeats cells: the mean is unchanged if the finest size is a multiple of the map's size.
    resized = [nn.functional.interpolate(heat, finest, mode="nearest-exact") for heat in heats]
    heat = torch.stack(resized).sum(0)
    divides = not any((np.array(finest) % heat.shape[2:]).any() for heat in heats)
    is_exact = network.head.is_affine and divides and _is_average(embedding, outputs, pooled)
    bias = (network.head(torch.zeros_like(pooled)) @ weight).item() if is_exact else None
    return Evidence(heat[0, 0].cpu().numpy(), CAM if is_exact else HIRESCAM, bias)


def _as_map(x: torch.Tensor, embedding: Embedding, is_final: bool) -> torch.Tensor:
    """Return the output of a layer as a map (1, c, h, w). Raises BackboneError if it is none."""
    if x.ndim == 4:
        channels_last = is_final and getattr(embedding.model, "output_fmt", "NCHW") == "NHWC"
        return x.permute(0, 3, 1, 2) if channels_last else x
    grid = patch_grid(embedding.model)
    if x.ndim == 3 and grid is not None and x.shape[1] == grid[0] * grid[1]:
        return x.transpose(1, 2).unflatten(2, grid)
    raise BackboneError(
        "explain needs feature maps, or attention over all patches, and this backbone has neither; "
        "use a convolutional network or a plain vision transformer."
    )


def _is_average(embedding: Embedding, outputs: dict, pooled: torch.Tensor) -> bool:
    """Return whether `pooled` equals average pooling, regardless of how the model pools."""
    average = Embedding(embedding.model, embedding.indices, "avg", False).pooled(outputs)
    return average.shape == pooled.shape and torch.allclose(average, pooled, _ROUNDING, _ROUNDING)


def rollout(
    network: Network, batch: torch.Tensor, weight: torch.Tensor, layers: list[Any]
) -> np.ndarray:
    """Return the relevance >= 0 of each patch for ``values @ weight``, float32 (h, w).

    Equations 5 and 6 of Chefer, Gur and Wolf (see `explain`): the positive part of attention times
    its gradient, averaged over heads, multiplied through the layers.
    """
    model: Any = network.embedding.model
    grid, prefix = patch_grid(model), int(model.num_prefix_tokens)
    assert grid is not None  # attention_layers found some  # nosec B101
    tokens = prefix + grid[0] * grid[1]
    rows = _pooled_tokens(network.embedding, prefix, tokens)
    with _recorded_attention(layers) as attentions:
        values = network.head(network.embedding(batch.detach().requires_grad_()))
    if not attentions or any(a.shape[-2:] != (tokens, tokens) for a in attentions):
        raise BackboneError(
            "explain needs attention over all patches, and this backbone attends to a part of them "
            "or pools them; use a plain vision transformer or a convolutional network."
        )
    slopes = torch.autograd.grad((values @ weight).sum(), attentions, allow_unused=True)
    relevance = identity = torch.eye(tokens, device=batch.device)
    for attention, slope in zip(attentions, slopes, strict=True):
        if slope is not None:  # None for layers above the last embedded one
            mixed = (attention.detach() * slope).clamp(min=0).mean(1)[0]
            relevance = relevance + mixed @ relevance
    of_patches = (relevance - identity)[rows].mean(0)[prefix:]
    return of_patches.reshape(grid).cpu().numpy()


def attention_layers(model: Any) -> list[Any]:
    """Return the attention layers of a timm model with patch tokens; none for other models."""
    if not hasattr(model, "num_prefix_tokens") or patch_grid(model) is None:
        return []
    return [m for m in model.modules() if hasattr(m, "fused_attn") and hasattr(m, "attn_drop")]


def _pooled_tokens(embedding: Embedding, prefix: int, tokens: int) -> list[int]:
    """Return the positions of the tokens that the embedding pools."""
    pooling = usual_pooling(embedding.model) if embedding.pooling == "auto" else embedding.pooling
    patches = list(range(prefix, tokens))
    positions = {"cls": [0], "avg": patches, "cls+avg": [0, *patches]}
    if pooling not in positions:
        raise BackboneError(
            "explain supports transformers with pooling 'auto', 'cls', 'avg' or 'cls+avg'; got "
            f"{pooling!r}: train the model with one of these."
        )
    return positions[pooling]


@contextmanager
def _recorded_attention(layers: list[Any]) -> Iterator[list[torch.Tensor]]:
    """Yield a list that collects the attention weights (n, heads, tokens, tokens) of each layer."""
    found: list[torch.Tensor] = []
    fused = [layer.fused_attn for layer in layers]
    hooks = [
        layer.attn_drop.register_forward_hook(lambda module, args, output: found.append(output))
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.fused_attn = False  # the fused operator does not expose its weights
        yield found
    finally:
        for layer, was_fused, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was_fused
            hook.remove()
