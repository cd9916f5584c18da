"""From feature maps and tokens to one vector per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from featuretl.exceptions import BackboneError

_GEM_P, _GEM_EPS = 3.0, 1e-6


@dataclass(eq=False, frozen=True)
class Features:
    """The output of one layer, whatever its layout; register tokens are left out."""

    positions: torch.Tensor  # (n, c, k): channels at the k spatial positions or patch tokens
    cls: torch.Tensor | None = None  # (n, c): the class token, if the network has one

    @classmethod
    def from_map(cls, x: torch.Tensor, prefix: torch.Tensor | None, has_cls: bool) -> Features:
        """Take a map (n, c, h, w) and prefix tokens (n, p, c), as forward_intermediates gives."""
        return cls(x.flatten(2), prefix[:, 0] if prefix is not None and has_cls else None)

    @classmethod
    def from_model(cls, x: torch.Tensor, model: Any) -> Features:
        """Take what ``model.forward_features`` gives: its layout is read off the model."""
        if x.ndim == 3:
            prefix = _prefix_tokens(model)
            return cls(x[:, prefix:].transpose(1, 2), x[:, 0] if has_class_token(model) else None)
        if x.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
            x = x.permute(0, 3, 1, 2)
        return cls(x.flatten(2) if x.ndim == 4 else x.flatten(1)[..., None])


def has_class_token(model: Any) -> bool:
    """Return whether the first prefix token is a class token (not a register token)."""
    return _prefix_tokens(model) > int(getattr(model, "num_reg_tokens", 0) or 0)


def usual_pooling(model: Any) -> str:
    """Return "cls" for a network that classifies by its class token, else "avg"."""
    return "cls" if has_class_token(model) and model.global_pool == "token" else "avg"


def _prefix_tokens(model: Any) -> int:
    """Return how many tokens come before the patch tokens; CoaT, PiT and VOLO do not say it."""
    count = getattr(model, "num_prefix_tokens", None)
    if count is None and getattr(model, "global_pool", None) == "token":
        token = getattr(model, "cls_token", None)
        count = 1 if token is None else token.shape[1]
    return int(count or 0)


def pool(features: Features, pooling: str) -> torch.Tensor:
    """Pool one layer's features.

    Parameters
    ----------
    pooling : {"avg", "max", "cls", "avg+max", "cls+avg", "gem", "flatten"}
        "avg+max" and "cls+avg" are concatenated in that order. "gem" is the generalised mean with
        p = 3 over values clamped to at least 1e-6 (Radenovic et al. 2018, "Fine-tuning CNN Image
        Retrieval with No Human Annotation"). "flatten" keeps every position, channel by channel.

    Returns
    -------
    pooled : Tensor of shape (n, c), (n, 2 c) for a sum of two, or (n, c k) for "flatten"
    """
    parts = [_pool_one(features, part) for part in pooling.split("+")]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _pool_one(features: Features, pooling: str) -> torch.Tensor:
    if pooling == "cls":
        if features.cls is None:
            raise BackboneError(
                "A layer of the backbone gives no class token, so pooling='cls' has nothing to "
                "take; use 'auto', 'avg' or 'max' with layers."
            )
        return features.cls
    x = features.positions
    if not x.shape[2]:
        raise BackboneError(
            f"The backbone gives class tokens alone, so pooling={pooling!r} has nothing to take; "
            "use 'auto' or 'cls'."
        )
    if pooling == "avg":
        return x.mean(2)
    if pooling == "max":
        return x.amax(2)
    if pooling == "gem":
        return x.clamp(min=_GEM_EPS).pow(_GEM_P).mean(2).pow(1 / _GEM_P)
    return x.flatten(1)
