"""Folding of the scale and shift of frozen batch-norms into the preceding convolutions."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import fx, nn

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold(module: nn.Module, graph: fx.Graph) -> nn.Module:
    """Return a folded copy of `module` in evaluation mode, or `module` if there is nothing to fold.

    `graph` is the module's graph of operations. The copy has its own tensors.
    """
    pairs = list(_pairs(module, graph))
    if not pairs:
        return module
    folded = copy.deepcopy(module)
    with torch.no_grad():
        for convolution, norm in pairs:
            _fold_pair(folded, convolution, norm)
    return folded.requires_grad_(False)


def _pairs(module: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and of the batch-norm that is its only user."""
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        names = str(before.target), str(node.target)
        convolution, norm = map(module.get_submodule, names)
        if (
            type(convolution) in _CONVOLUTIONS
            and type(norm) in _BATCH_NORMS
            and isinstance(norm.running_mean, torch.Tensor)
            and norm.affine
            and all(calls[name] == 1 for name in names)
        ):
            yield names


def _fold_pair(module: nn.Module, name: str, norm_name: str) -> None:
    convolution: Any = module.get_submodule(name)
    norm: Any = module.get_submodule(norm_name)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = 0.0 if convolution.bias is None else convolution.bias
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(norm.bias + (bias - norm.running_mean) * scale)
    rest = [norm.drop, norm.act] if isinstance(norm, BatchNormAct2d) else []
    left = nn.Sequential(*(part for part in rest if not isinstance(part, nn.Identity)))
    module.set_submodule(norm_name, left.eval())
