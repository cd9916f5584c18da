"""Embedding: a timm model, its layers and pooling as one module."""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import torch
from torch import nn

from featuretl.backbones.spec import PRE_LOGITS, Layer
from featuretl.exceptions import BackboneError

_GEM_P, _GEM_EPS = 3.0, 1e-6


class Embedding(nn.Module):
    """Layers of a timm model in evaluation mode, pooled as in `load_backbone` and concatenated.

    `indices` are layer numbers in output order; None is the output before the classifier.
    """

    def __init__(
        self, model: nn.Module, indices: list[int | None], pooling: str, normalize: bool
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.indices, self.pooling, self.normalize = indices, pooling, normalize

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, float32 (n, d), of the network's input (n, 3, height, width)."""
        return self.pooled(self.outputs(batch))

    def outputs(self, batch: torch.Tensor) -> dict[int | None, Any]:
        """Return the unpooled outputs of the layers by number; None is ``forward_features``.

        In a network with a class token, the output of a layer is its map and its prefix tokens.
        """
        model, indices = self.model, sorted({i for i in self.indices if i is not None})
        batch = batch.to(next(model.parameters(), batch).dtype)
        if not indices:
            return {None: model.forward_features(batch)}
        takes = signature(model.forward_intermediates).parameters
        tokens = has_class_token(model) and "return_prefix_tokens" in takes
        final, intermediates = model.forward_intermediates(
            batch, indices=indices, **({"return_prefix_tokens": True} if tokens else {})
        )
        outputs: dict[int | None, Any] = dict(zip(indices, intermediates, strict=True))
        return {None: final, **outputs} if None in self.indices else outputs

    def pooled(self, outputs: dict[int | None, Any]) -> torch.Tensor:
        """Return the embeddings, float32 (n, d), from `outputs`; a grid is flattened."""
        if self.pooling == "grid":
            return self.grid(outputs).flatten(1)
        pooled = {index: self._pool(index, output) for index, output in outputs.items()}
        embedding = torch.cat([pooled[index] for index in self.indices], dim=1).float()
        return nn.functional.normalize(embedding, dim=1) if self.normalize else embedding

    def grid(self, outputs: dict[int | None, Any]) -> torch.Tensor:
        """Return the embeddings of all positions, float32 (n, h, w, d), from `outputs`."""
        grids = [as_grid(outputs[index], self.model, index is None) for index in self.indices]
        sizes = {tuple(grid.shape[1:3]) for grid in grids}
        if len(sizes) > 1:
            raise BackboneError(
                f"pooling='grid' needs layers of one size, but these have {sorted(sizes)} "
                "positions; request them one at a time."
            )
        grid = torch.cat(grids, dim=3).float()
        return nn.functional.normalize(grid, dim=3) if self.normalize else grid

    def _pool(self, index: int | None, output: Any) -> torch.Tensor:
        if index is None:
            return self._pool_final(output)
        x, prefix = output if isinstance(output, (tuple, list)) else (output, None)
        usual = "avg" if prefix is None else usual_pooling(self.model)
        cls = prefix[:, 0] if prefix is not None and has_class_token(self.model) else None
        return _pool(x.flatten(2), cls, usual if self.pooling == "auto" else self.pooling)

    def _pool_final(self, x: Any) -> torch.Tensor:
        if self.pooling == "auto":
            return self.model.forward_head(x, pre_logits=True).flatten(1)
        x = getattr(x, "last_hidden_state", x)  # of Hugging Face models
        branches = x if isinstance(x, (tuple, list)) else [x]  # CoaT and CrossViT have several
        parts = [
            _pool(*_positions_and_cls(branch, self.model), self.pooling) for branch in branches
        ]
        return torch.cat(parts, dim=1)


def layer_index(layer: Layer, names: list[str], backbone: str) -> int | None:
    """Return the number of a layer among `names`; None for the output before the classifier."""
    if layer == PRE_LOGITS:
        return None
    if isinstance(layer, str) and layer in names:
        return names.index(layer)
    if isinstance(layer, int) and -len(names) <= layer < len(names):
        return layer % len(names)
    shown = [f"{i} {name!r}" for i, name in enumerate(names)]
    listed = ", ".join([*shown[:40], *([".."] if len(shown) > 40 else [])]) or "none"
    raise BackboneError(
        f"The backbone {backbone!r} has no layer {layer!r}; use 'pre_logits', or one of these by "
        f"number or name: {listed}."
    )


def as_grid(output: Any, model: Any, is_final: bool) -> torch.Tensor:
    """Return a layer's output, or that of ``forward_features``, as positions (n, h, w, d).

    Raises BackboneError for an output without two dimensions of positions.
    """
    x = getattr(output, "last_hidden_state", output)
    if isinstance(x, (tuple, list)) and not is_final:
        x = x[0]  # without the prefix tokens
    if isinstance(x, torch.Tensor) and x.ndim == 4:
        is_nhwc = is_final and getattr(model, "output_fmt", "NCHW") == "NHWC"
        return x if is_nhwc else x.permute(0, 2, 3, 1)
    if isinstance(x, torch.Tensor) and x.ndim == 3:
        x = x[:, _n_prefix_tokens(model) :] if is_final else x.transpose(1, 2)
        side = math.isqrt(x.shape[1])
        grid = patch_grid(model) or (side, side)
        if x.shape[1] == grid[0] * grid[1]:
            return x.unflatten(1, grid)
    raise BackboneError(
        "pooling='grid' needs a map or a grid of patch tokens, but the backbone gives neither; use "
        "another pooling."
    )


def patch_grid(model: Any) -> tuple[int, int] | None:
    """Return the number of patches (down, across) of a timm model; None without patches."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def has_class_token(model: Any) -> bool:
    """Return whether the first prefix token is a class token (not a register token)."""
    registers = getattr(model, "num_reg_tokens", None)
    if registers is None:  # EVA
        token = getattr(model, "reg_token", None)
        registers = 0 if token is None else token.shape[1]
    return _n_prefix_tokens(model) > registers


def usual_pooling(model: Any) -> str:
    """Return "cls" for a network that classifies by its class token, otherwise "avg"."""
    return "cls" if has_class_token(model) and model.global_pool == "token" else "avg"


def _n_prefix_tokens(model: Any) -> int:
    """Return the number of tokens before the patch tokens, also for CoaT, PiT and VOLO."""
    count = getattr(model, "num_prefix_tokens", None)
    if count is None and getattr(model, "global_pool", None) == "token":
        token = getattr(model, "cls_token", None)
        count = 1 if token is None else token.shape[1]
    return int(count or 0)


def _positions_and_cls(x: torch.Tensor, model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return ``forward_features``' positions or patch tokens (n, c, k) and class token (n, c)."""
    if x.ndim == 3:
        cls = x[:, 0] if has_class_token(model) else None
        return x[:, _n_prefix_tokens(model) :].transpose(1, 2), cls
    if x.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
        x = x.permute(0, 3, 1, 2)
    return (x.flatten(2) if x.ndim == 4 else x.flatten(1)[..., None]), None


def _pool(x: torch.Tensor, cls: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Pool positions (n, c, k) and a class token (n, c); "+" concatenates two poolings."""
    parts = [_pool_one(x, cls, part) for part in pooling.split("+")]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _pool_one(x: torch.Tensor, cls: torch.Tensor | None, pooling: str) -> torch.Tensor:
    if pooling == "cls":
        if cls is None:
            raise BackboneError(
                "pooling='cls' needs a class token, but a layer of the backbone gives no class "
                "token; use 'auto', 'avg' or 'max' with layers."
            )
        return cls
    if not x.shape[2]:
        raise BackboneError(
            f"pooling={pooling!r} needs positions or patch tokens, but the backbone gives only "
            "class tokens; use 'auto' or 'cls'."
        )
    if pooling == "avg":
        return x.mean(2)
    if pooling == "max":
        return x.amax(2)
    if pooling == "gem":  # Radenovic et al. 2018, "Fine-tuning CNN Image Retrieval .."
        return x.clamp(min=_GEM_EPS).pow(_GEM_P).mean(2).pow(1 / _GEM_P)
    return x.flatten(1)
