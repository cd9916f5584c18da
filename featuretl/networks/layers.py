"""The layers of fitted heads and transformers: rows (n, d) in, rows out."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import nn


class Affine(nn.Module):
    """``x @ weight.T + bias`` for `weight` (k, d), or ``x * weight + bias`` for `weight` (d,)."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        self.weight = nn.Buffer(float64(weight))
        self.bias = nn.Buffer(float64(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (n, k), or (n, d)."""
        if self.weight.ndim == 1:
            return x * self.weight + self.bias
        return nn.functional.linear(x, self.weight, self.bias)

    def then(self, after: Affine) -> Affine:
        """Return one layer that equals this one followed by `after`."""
        if after.weight.ndim == 1:
            weight = after.weight.reshape(-1, *[1] * (self.weight.ndim - 1)) * self.weight
            return Affine(weight, after.weight * self.bias + after.bias)
        weight = after.weight * self.weight if self.weight.ndim == 1 else after.weight @ self.weight
        return Affine(weight, after.weight @ self.bias + after.bias)


class Normalise(nn.Module):
    """Divide rows by their norm "l1", "l2" or "max"; rows of zeros are unchanged."""

    def __init__(self, norm: str = "l2") -> None:
        super().__init__()
        self._order = {"l1": 1, "l2": 2, "max": torch.inf}[norm]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (n, d)."""
        length = torch.linalg.vector_norm(x, self._order, dim=1, keepdim=True)
        return x / torch.where(length > 0, length, torch.ones_like(length))


class Nearness(nn.Module):
    """Minus the squared distance to each of `means` (k, d); minus infinity unless `seen` (k,)."""

    def __init__(self, means: Any, seen: Any) -> None:
        super().__init__()
        means = np.where(np.asarray(seen)[:, None], means, 0)
        lengths = np.where(seen, np.square(means).sum(axis=1), np.inf)
        self.means = nn.Buffer(float64(means))
        self.lengths = nn.Buffer(float64(lengths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (n, k)."""
        return 2 * x @ self.means.T - self.lengths - x.square().sum(1, keepdim=True)


class RBF(nn.Module):
    """``exp(-gamma ||x - r||^2)`` for each of `rows` (m, d)."""

    def __init__(self, rows: Any, gamma: float) -> None:
        super().__init__()
        self._gamma = float(gamma)
        self.rows = nn.Buffer(float64(rows))
        self.lengths = nn.Buffer(self.rows.square().sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows (n, m)."""
        distance = x.square().sum(1, keepdim=True) + self.lengths - 2 * x @ self.rows.T
        return torch.exp(-self._gamma * distance.clamp(min=0))


class Votes(nn.Module):
    """One-vs-one decisions (n, pairs) to a value per class (n, n_classes), as in SVC.

    Each pair votes for a class; the sums of the decisions, squashed into (-1/3, 1/3), break ties.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        pairs = np.array(list(combinations(range(n_classes), 2)))
        self.first = nn.Buffer(float64(pairs[:, [0]] == np.arange(n_classes)))
        self.second = nn.Buffer(float64(pairs[:, [1]] == np.arange(n_classes)))

    def forward(self, decisions: torch.Tensor) -> torch.Tensor:
        """Return values (n, n_classes) from decisions (n, pairs)."""
        for_first = (decisions >= 0).to(decisions.dtype)
        votes = for_first @ self.first + (1 - for_first) @ self.second
        total = decisions @ (self.first - self.second)
        return votes + total / (3 * (total.abs() + 1))


def fused(layers: list[nn.Module]) -> nn.Sequential:
    """Return `layers` as one float32 module, with adjacent affine layers fused."""
    result: list[nn.Module] = []
    for layer in layers:
        if result and isinstance(layer, Affine) and isinstance(before := result[-1], Affine):
            result[-1] = before.then(layer)
        else:
            result.append(layer)
    return nn.Sequential(*result).float().requires_grad_(False).eval()


def float64(values: Any) -> torch.Tensor:
    """Return a new float64 tensor: layers are fused before rounding to float32."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().to(torch.float64)
    return torch.from_numpy(np.array(values, np.float64))
