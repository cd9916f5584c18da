"""Folding: a convolution and the batch-norm after it as one operation, with the same tensors.

With frozen statistics, batch-norm is a scale and a shift per channel. Applied to the weights of the
convolution rather than to its output, it costs next to nothing; gradients reach the same
parameters, with the same values.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, conv2d_same
from torch import fx, nn
from torch.nn import functional

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold(part: fx.GraphModule) -> fx.GraphModule:
    """Fold each batch-norm of `part` into the convolution before it, where there is one.

    Parameters
    ----------
    part : torch.fx.GraphModule
        Changed in place. The names of its tensors stay as they are; statistics are taken from the
        running ones, whether it is in training or not.

    Returns
    -------
    part : torch.fx.GraphModule
    """
    for node in list(part.graph.nodes):
        if node.op == "call_module" and _is_foldable(node, part):
            _fold_node(node, part)
    part.recompile()
    return part


def _is_foldable(node: fx.Node, part: fx.GraphModule) -> bool:
    norm: Any = part.get_submodule(str(node.target))
    before = node.args[0] if len(node.args) == 1 else None
    if type(norm) not in _BATCH_NORMS or not norm.affine or norm.running_mean is None:
        return False
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
        return False
    convolution = part.get_submodule(str(before.target))
    return (
        type(convolution) in _CONVOLUTIONS
        and len(before.args) == 1
        and convolution.padding_mode == "zeros"
    )


def _fold_node(node: fx.Node, part: fx.GraphModule) -> None:
    """Put one call in place of the batch-norm `node` and the convolution before it."""
    before: Any = node.args[0]
    norm: Any = part.get_submodule(str(node.target))
    convolution: Any = part.get_submodule(str(before.target))
    names = [f"{node.target}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    own = [f"{before.target}.weight"]
    if convolution.bias is not None:
        own.append(f"{before.target}.bias")
    options = {
        "eps": norm.eps,
        "same_padding": isinstance(convolution, Conv2dSame),
        "stride": convolution.stride,
        "padding": convolution.padding,
        "dilation": convolution.dilation,
        "groups": convolution.groups,
    }
    graph = part.graph
    with graph.inserting_before(node):
        tensors = [graph.get_attr(name) for name in (*names, *own)]
        result = graph.call_function(_convolve_and_normalise, (before.args[0], *tensors), options)
        for name in ("drop", "act") if isinstance(norm, BatchNormAct2d) else ():
            if not isinstance(getattr(norm, name), nn.Identity):
                result = graph.call_module(f"{node.target}.{name}", (result,))
    node.replace_all_uses_with(result)
    graph.erase_node(node)
    graph.erase_node(before)


def _convolve_and_normalise(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    eps: float,
    same_padding: bool,
    **options: Any,
) -> torch.Tensor:
    """Return ``batch_norm(conv(x))`` with frozen statistics, by one convolution."""
    scale = scale * torch.rsqrt(variance + eps)
    shift = shift - mean * scale if bias is None else shift + (bias - mean) * scale
    convolve = conv2d_same if same_padding else functional.conv2d
    return convolve(x, weight * scale[:, None, None, None], shift, **options)
