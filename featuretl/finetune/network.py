"""The trainable network (the top blocks of a backbone and a head) and its saved form."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from featuretl.backbones.backbone import Backbone, load_spec
from featuretl.backbones.blocks import PreLogits
from featuretl.backbones.devices import usable_device
from featuretl.backbones.folding import fold
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError
from featuretl.finetune.trunk import activation_shape

_PREFIX = "model."
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class TunedNetwork(nn.Module):
    """`top` maps activations (or images) to embeddings, `head` maps embeddings to outputs."""

    def __init__(self, top: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.top, self.head = top, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (n, k) for the input of `top`."""
        return self.head(self.top(x))

    def train_blocks(self, blocks: list[frozenset[str]], batch_norm: str) -> None:
        """Make the head and `blocks` trainable alone; their statistics for `batch_norm` "train"."""
        self.train()
        trainable = frozenset[str]().union(*blocks)
        for name, parameter in self.top.named_parameters():
            parameter.requires_grad_(name.removeprefix(_PREFIX) in trainable)
        self.head.requires_grad_(True)
        for module in self.top.modules():
            if isinstance(module, _BATCH_NORMS):
                is_trainable = any(p.requires_grad for p in module.parameters())
                module.train(is_trainable and batch_norm == "train")

    def distance_from_head(self, blocks: list[frozenset[str]]) -> Iterator[tuple[int, Any]]:
        """Yield each trainable parameter with its block's distance from the head, 0 for the head."""
        for parameter in self.head.parameters():
            yield 0, parameter
        for name, parameter in self.top.named_parameters():
            for distance, block in enumerate(reversed(blocks), 1):
                if name.removeprefix(_PREFIX) in block:
                    yield distance, parameter


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all tensors, buffers included."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def new_head(kind: Any, n_features: int, n_outputs: int, seed: int) -> nn.Module:
    """Return a linear layer for "probe" or "linear", or a ReLU network for ("mlp", width)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if isinstance(kind, str):
            return nn.Linear(n_features, n_outputs)
        width = int(kind[1])
        return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_outputs))


def set_head(head: Any, coef: np.ndarray, intercept: np.ndarray) -> None:
    """Copy a linear probe, `coef` (k, d) and `intercept` (k,), into a linear head."""
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.ascontiguousarray(coef)))
        head.bias.copy_(torch.from_numpy(np.ascontiguousarray(intercept)))


@dataclass(frozen=True)
class Split:
    """A backbone split into a frozen and a trainable part."""

    trunk: nn.Module | None  # frozen; None if the whole backbone is trained or cannot be cut
    top: nn.Module  # a copy of the trainable part
    blocks: list[frozenset[str]]  # parameter names of each trainable block, from input to output
    n_features: int
    why_not_cut: str = ""  # why the backbone cannot be cut; empty if it can


def split(backbone: Backbone, n_blocks: int | str) -> Split:
    """Split a backbone below its last `n_blocks` blocks ("all": at its input), or BackboneError."""
    whole = PreLogits(backbone.model)
    d = activation_shape(backbone, whole)[0]
    if n_blocks == "all":
        return Split(None, _frozen_copy(whole), _every_block(backbone), d)
    if int(n_blocks) > len(backbone.blocks):
        raise BackboneError(
            f"The backbone {backbone.spec.name!r} has {len(backbone.blocks)} blocks, fewer than "
            f"n_blocks={n_blocks}; pass a smaller number, or 'all' to train the stem too."
        )
    blocks = list(backbone.block_parameters[-int(n_blocks) :])
    try:
        trunk, top = backbone.cut(int(n_blocks))
    except BackboneError as error:
        return Split(None, _frozen_copy(whole), blocks, d, str(error))
    return Split(fold(trunk, trunk.graph), _frozen_copy(top), blocks, d)


def _every_block(backbone: Backbone) -> list[frozenset[str]]:
    """Return the parameters of the stem and of each block, or all in one set without blocks."""
    names = frozenset(name for name, _ in backbone.model.named_parameters())
    try:
        blocks = list(backbone.block_parameters)
    except BackboneError:
        return [names]
    return [names.difference(*blocks), *blocks]


def _frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().requires_grad_(False)


class Tuned:
    """The trained tensors of a fitted estimator, from which `live` rebuilds the network.

    A pickle does not contain the frozen trunk: `live` loads the backbone again, and raises
    BackboneError if its weights are not those of training.
    """

    def __init__(
        self, backbone: Backbone, parts: Split, n_blocks: Any, head: Any, network: TunedNetwork
    ) -> None:
        self.spec: BackboneSpec = backbone.spec
        self.tensors = backbone.recipe["backbone"]["tensors"]
        self.n_blocks, self._head = n_blocks, head
        network.eval().requires_grad_(False)
        tensors = network.state_dict().items()
        self.state = {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors}
        self._live: tuple[Backbone, nn.Module | None, TunedNetwork] | None
        self._live = backbone, parts.trunk, network

    def live(self, device: str) -> tuple[Backbone, nn.Module | None, TunedNetwork]:
        """Return the backbone, its trunk and the network; load them unless they are on `device`."""
        live = self._live
        if live and (device == "auto" or usable_device("load_backbone", device) == live[0].device):
            return live
        backbone = load_spec(self.spec, device)
        if backbone.recipe["backbone"]["tensors"] != self.tensors:
            raise BackboneError(
                f"The weights of {self.spec.name!r} here are not those that this model was "
                "fine-tuned from; install or pass the original weights."
            )
        parts = split(backbone, self.n_blocks)
        weights = [k for k in self.state if k.startswith("head.") and k.endswith("weight")]
        head = new_head(self._head, parts.n_features, len(self.state[weights[-1]]), 0)
        network = TunedNetwork(parts.top, head)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in self.state.items()})
        network.to(backbone.device).eval()
        self._live = backbone, parts.trunk, network.requires_grad_(False)
        return self._live

    def whole(self, device: str) -> tuple[Backbone, nn.Module, nn.Module]:
        """Return the backbone, a copy of timm's model with the trained tensors, and the head."""
        backbone, _, network = self.live(device)
        model = copy.deepcopy(backbone.model)
        prefix = f"top.{_PREFIX}"
        tensors = network.state_dict().items()
        trained = {n.removeprefix(prefix): t for n, t in tensors if n.startswith(prefix)}
        model.load_state_dict({**model.state_dict(), **trained})
        return backbone, model, network.head

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tuned:
        twin = copy.copy(self)
        twin._live = None
        return twin
