"""Gradient attention rollout: how much each patch of a vision transformer adds to a value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from featuretl.backbones.embedding import Embedding, usual_pooling
from featuretl.exceptions import BackboneError
from featuretl.networks.network import Network


def rollout(
    network: Network, batch: torch.Tensor, weight: torch.Tensor, layers: list[Any]
) -> np.ndarray:
    """Return the relevance >= 0 of each patch, float32 (h, w), for ``values @ weight``.

    Equations 5 and 6 of Chefer, Gur and Wolf, "Generic Attention-model Explainability for
    Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021: the positive part of
    attention times its gradient, averaged over heads, rolled out over the layers (Abnar and
    Zuidema 2020).
    Raises BackboneError if a layer does not attend to all tokens, or on another pooling.
    """
    model: Any = network.embedding.model
    grid, prefix = patch_grid(model), int(model.num_prefix_tokens)
    assert grid is not None  # attention_layers found some  # nosec B101
    tokens = prefix + grid[0] * grid[1]
    rows = _pooled_tokens(network.embedding, prefix, tokens)
    with _recorded(layers) as attentions:
        values = network.head(network.embedding(batch.detach().requires_grad_()))
    if not attentions or any(a.shape[-2:] != (tokens, tokens) for a in attentions):
        raise BackboneError(
            "explain needs attention over all patches, and this backbone's is over some, or pools "
            "them; use a plain vision transformer or a convolutional network."
        )
    slopes = torch.autograd.grad((values @ weight).sum(), attentions, allow_unused=True)
    relevance = identity = torch.eye(tokens, device=batch.device)
    for attention, slope in zip(attentions, slopes, strict=True):
        if slope is not None:  # there is none above the highest layer that is embedded
            mixed = (attention.detach() * slope).clamp(min=0).mean(1)[0]
            relevance = relevance + mixed @ relevance
    of_patches = (relevance - identity)[rows].mean(0)[prefix:]
    return of_patches.reshape(grid).cpu().numpy()


def attention_layers(model: Any) -> list[Any]:
    """Return the layers of a timm model of patch tokens that attend to other tokens."""
    if not hasattr(model, "num_prefix_tokens") or patch_grid(model) is None:
        return []
    return [m for m in model.modules() if hasattr(m, "fused_attn") and hasattr(m, "attn_drop")]


def patch_grid(model: Any) -> tuple[int, int] | None:
    """Return how many patches there are, (down, across), in a timm model that has any."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def _pooled_tokens(embedding: Embedding, prefix: int, tokens: int) -> list[int]:
    """Return the tokens that the embedding is pooled from."""
    pooling = usual_pooling(embedding.model) if embedding.pooling == "auto" else embedding.pooling
    patches = list(range(prefix, tokens))
    of_pooling = {"cls": [0], "avg": patches, "cls+avg": [0, *patches]}
    if pooling not in of_pooling:
        raise BackboneError(
            f"explain reads the attention of a transformer with pooling 'auto', 'cls', 'avg' or "
            f"'cls+avg'; got {pooling!r}."
        )
    return of_pooling[pooling]


@contextmanager
def _recorded(layers: list[Any]) -> Iterator[list[torch.Tensor]]:
    """Yield a list that collects the attention weights (n, heads, tokens, tokens) of each layer."""
    found: list[torch.Tensor] = []
    fused = [layer.fused_attn for layer in layers]
    hooks = [
        layer.attn_drop.register_forward_hook(lambda module, args, output: found.append(output))
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.fused_attn = False  # the fused operator keeps its weights to itself
        yield found
    finally:
        for layer, was_fused, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was_fused
            hook.remove()
