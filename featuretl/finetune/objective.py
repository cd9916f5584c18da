"""What is to be learnt, what training minimises, and how held-out rows are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional


@dataclass(eq=False, frozen=True)
class Problem:
    """The targets of n images, and the linear probe for them."""

    # "softmax", "binary" or "squared": cross-entropy of classes, mean binary cross-entropy of labels,
    # or mean squared error.
    kind: str
    # Class numbers (n,), labels of 0 and 1 (n, labels), or values (n, outputs).
    target: np.ndarray
    # (n,) or (n, labels); training scales them to a mean of 1.
    weight: np.ndarray
    # Outputs of the network.
    n_outputs: int
    # Classes (n,) that splits spread evenly.
    strata: np.ndarray | None
    # From embeddings, rows, groups or None, and the strength of the penalty (None: to be chosen) to
    # coefficients (n_outputs, d) and intercepts (n_outputs,) of a linear probe, and its strength.
    probe: Callable[[np.ndarray, np.ndarray, Any, Any], tuple[np.ndarray, np.ndarray, Any]]
    # From a strength to that of the probe that training starts from.
    soften: Callable[[Any], Any]


class Objective:
    """A loss on the outputs (k, outputs) of some rows, against the targets of a `Problem`."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self.kind = problem.kind
        dtype = torch.int64 if self.kind == "softmax" else torch.float32
        self._target = torch.as_tensor(np.asarray(problem.target), dtype=dtype).to(device)
        weight = problem.weight.reshape(len(problem.target), -1) / problem.weight.mean()
        self._weight = torch.as_tensor(weight, dtype=torch.float32).to(device)

    def loss(self, outputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the weighted mean loss of `rows`, to be minimised."""
        losses = self._losses(outputs.float(), rows)
        return (losses * self._weight[rows]).mean()

    def held_out_losses(self, outputs: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """Return the weighted loss of each of `rows`: float64 (k,)."""
        losses = self._losses(outputs.float(), rows) * self._weight[rows]
        return losses.mean(dim=1).double().cpu().numpy()

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the weight of each of `rows`, over labels their mean: float64 (k,)."""
        return self._weight[rows].mean(dim=1).double().cpu().numpy()

    def scores(self, outputs: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """Return 1 for each of `rows` predicted right, else 0; the share of right labels; or the
        squared error with a minus: float64 (k,).
        """
        target = self._target[rows]
        if self.kind == "softmax":
            right = outputs.argmax(dim=1) == target
        elif self.kind == "binary":
            right = ((outputs > 0) == (target > 0.5)).double().mean(dim=1)
        else:
            right = -torch.square(outputs - target).mean(dim=1)
        return right.double().cpu().numpy()

    def _losses(self, outputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return losses (k, 1), or (k, labels)."""
        target = self._target[rows]
        if self.kind == "softmax":
            return functional.cross_entropy(outputs, target, reduction="none")[:, None]
        if self.kind == "binary":
            return functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        return torch.square(outputs - target).mean(dim=1, keepdim=True)
