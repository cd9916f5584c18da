"""From a network's input to embeddings: the model, its layers and pooling, as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from featuretl.backbones.pooling import Features, has_class_token, pool, usual_pooling


class Embedding(nn.Module):
    """A timm model up to the layers that are asked for, pooled and concatenated.

    Parameters
    ----------
    model : torch.nn.Module
        timm's, in evaluation mode; its precision is that of the computation.
    indices : list of int or None
        Layers by number, in the order of the output; None is the output before the classifier.
    pooling : str
        See `featuretl.backbones.backbone.load_backbone`.
    normalize : bool
    """

    def __init__(
        self, model: nn.Module, indices: list[int | None], pooling: str, normalize: bool
    ) -> None:
        super().__init__()
        self.model: Any = model
        self._indices, self._pooling, self._normalize = indices, pooling, normalize

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n, d), float32, of the network's input (n, 3, height, width)."""
        dtype = next(self.model.parameters()).dtype
        embedding = torch.cat(self._outputs(batch.to(dtype)), dim=1).float()
        if self._normalize:
            embedding = nn.functional.normalize(embedding, dim=1)
        return embedding

    def _outputs(self, batch: torch.Tensor) -> list[torch.Tensor]:
        model, indices = self.model, sorted({i for i in self._indices if i is not None})
        if not indices:
            return [self._pool_final(model.forward_features(batch))] * len(self._indices)
        has_cls = has_class_token(model)
        final, intermediates = model.forward_intermediates(
            batch, indices=indices, **({"return_prefix_tokens": True} if has_cls else {})
        )
        pooling = usual_pooling(model) if self._pooling == "auto" else self._pooling
        pooled = {}
        for index, output in zip(indices, intermediates, strict=True):
            x, prefix = output if isinstance(output, (tuple, list)) else (output, None)
            pooled[index] = pool(Features.from_map(x, prefix, has_cls), pooling)
        return [
            self._pool_final(final) if index is None else pooled[index] for index in self._indices
        ]

    def _pool_final(self, x: torch.Tensor) -> torch.Tensor:
        if self._pooling == "auto":
            return self.model.forward_head(x, pre_logits=True).flatten(1)
        return pool(Features.from_model(x, self.model), self._pooling)
