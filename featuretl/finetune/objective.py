"""The targets of fine-tuning, the loss that training minimises, and the scores of held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional


@dataclass(eq=False, frozen=True)
class Problem:
    """The targets of n images, and how to fit a linear probe to them."""

    # The loss: "softmax" is the cross-entropy of classes, "binary" the mean binary cross-entropy of
    # labels, "squared" the mean squared error.
    kind: str
    # Class codes (n,), a label indicator of 0 and 1 (n, labels), or regression targets (n, outputs).
    target: np.ndarray
    weight: np.ndarray  # (n,) or (n, labels); training scales them to a mean of 1
    n_outputs: int
    strata: np.ndarray | None  # the classes (n,) by which splits are stratified
    # probe(embeddings, rows, groups, strength) fits a linear probe to `rows`, and returns
    # coefficients (n_outputs, d), intercepts (n_outputs,) and the strength of the penalty, which
    # it chooses for None.
    probe: Callable[[np.ndarray, np.ndarray, Any, Any], tuple[np.ndarray, np.ndarray, Any]]
    softening: float = 1.0  # strength of the probe that training starts from, relative to the best


class Objective:
    """The loss of the outputs (k, outputs) of k rows, against the targets of a `Problem`."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self.kind, self.device = problem.kind, device
        dtype = torch.int64 if self.kind == "softmax" else torch.float32
        self._target = torch.as_tensor(np.asarray(problem.target), dtype=dtype).to(device)
        weight = problem.weight.reshape(len(problem.target), -1) / problem.weight.mean()
        self._weight = torch.as_tensor(weight, dtype=torch.float32).to(device)

    def loss(self, outputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return the weighted mean loss of `rows`, which training minimises."""
        return self._losses(outputs, rows).mean()

    def held_out_losses(self, outputs: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """Return the weighted loss of each row, float64 (k,)."""
        return self._losses(outputs, rows).mean(dim=1).double().cpu().numpy()

    def weights(self, rows: np.ndarray) -> np.ndarray:
        """Return the weight of each row, averaged over its labels: float64 (k,)."""
        return self._weight[rows].mean(dim=1).double().cpu().numpy()

    def scores(self, outputs: torch.Tensor, rows: np.ndarray) -> np.ndarray:
        """Return the score of each row, float64 (k,): accuracy, or the negative squared error."""
        target = self._target[rows]
        if self.kind == "softmax":
            scores = outputs.argmax(dim=1) == target
        elif self.kind == "binary":
            scores = ((outputs > 0) == (target > 0.5)).double().mean(dim=1)
        else:
            scores = -torch.square(outputs - target).mean(dim=1)
        return scores.double().cpu().numpy()

    def _losses(self, outputs: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """Return weighted losses (k, 1), or (k, labels)."""
        outputs, target = outputs.float(), self._target[rows]
        if self.kind == "softmax":
            losses = functional.cross_entropy(outputs, target, reduction="none")[:, None]
        elif self.kind == "binary":
            losses = functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        else:
            losses = torch.square(outputs - target).mean(dim=1, keepdim=True)
        return losses * self._weight[rows]
