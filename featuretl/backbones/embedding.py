"""From a network's input to embeddings: the model, its layers and pooling, as one module."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import nn

from featuretl.backbones.pooling import Features, has_class_token, pool, usual_pooling


class Embedding(nn.Module):
    """Layers of a timm model, pooled as in `load_backbone` and concatenated.

    `model` is in evaluation mode and computes in its own precision. `indices` are the layers by
    number, in the order of the output; None is the output before the classifier.
    """

    def __init__(
        self, model: nn.Module, indices: list[int | None], pooling: str, normalize: bool
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.indices, self.pooling, self.normalize = indices, pooling, normalize

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, d), float32, of the network's input (n, 3, height, width)."""
        return self.pooled(self.outputs(batch))

    def outputs(self, batch: torch.Tensor) -> dict[int | None, Any]:
        """Return the outputs of the layers, not pooled, by number; None is ``forward_features``.

        In a network with a class token, a numbered layer gives its map and its prefix tokens.
        """
        model, indices = self.model, sorted({i for i in self.indices if i is not None})
        batch = batch.to(next(model.parameters()).dtype)
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
        """Return the embeddings (n, d), float32, from `outputs`."""
        pooled = {index: self._pool(index, output) for index, output in outputs.items()}
        embedding = torch.cat([pooled[index] for index in self.indices], dim=1).float()
        return nn.functional.normalize(embedding, dim=1) if self.normalize else embedding

    def _pool(self, index: int | None, output: Any) -> torch.Tensor:
        if index is None:
            return self._pool_final(output)
        x, prefix = output if isinstance(output, (tuple, list)) else (output, None)
        usual = "avg" if prefix is None else usual_pooling(self.model)
        pooling = usual if self.pooling == "auto" else self.pooling
        return pool(Features.from_map(x, prefix, has_class_token(self.model)), pooling)

    def _pool_final(self, x: Any) -> torch.Tensor:
        if self.pooling == "auto":
            return self.model.forward_head(x, pre_logits=True).flatten(1)
        branches = x if isinstance(x, (tuple, list)) else [x]  # CoaT and CrossViT have several
        parts = [pool(Features.from_model(branch, self.model), self.pooling) for branch in branches]
        return torch.cat(parts, dim=1)
