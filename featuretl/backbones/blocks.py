"""Blocks: the ordered units of a timm model, and the model cut in two where a block begins.

A block is the smallest repeated unit (one MBConv, one bottleneck, one transformer block), as the
model's own ``group_matcher`` divides its parameters for layer-wise rates. What comes before the
first block is the stem; what lies between the last block and the classifier belongs to the last.

A cut is made on the graph of operations (torch.fx): where block k begins, a single tensor must
carry everything that the later operations need from the earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn

from featuretl._core.text import reason_of
from featuretl.exceptions import BackboneError

_PREFIX = "model."
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Block:
    """One block of a model."""

    name: str  # the path of its module; of the largest, where there are several
    parameters: frozenset[str]  # their names in the model


class PreLogits(nn.Module):
    """A timm model up to its classifier: images (n, 3, h, w) to embeddings (n, d)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed images."""
        features = self.model.forward_features(x)
        return self.model.forward_head(features, pre_logits=True).flatten(1)


def find_blocks(model: Any, name: str) -> tuple[Block, ...]:
    """Return the blocks of timm's model `name`, from input to output.

    Raises BackboneError if the model does not define groups of parameters.
    """
    from timm.models import group_parameters

    try:
        groups = list(group_parameters(model, model.group_matcher(coarse=False)).values())
    except (AttributeError, TypeError, RuntimeError, AssertionError) as error:
        raise BackboneError(
            f"The backbone {name!r} does not say what its blocks are; it can only be trained "
            "whole, with n_blocks='all'."
        ) from error
    classifier = _classifier_parameters(model)
    names = [_name_of(group, groups, model) for group in groups]
    parameters = [[p for p in group if p not in classifier] for group in groups]
    if len(groups) > 2 and len(parameters[-1]) < len(groups[-1]):
        between = parameters.pop()  # the last block and the classifier
        parameters[-1] += between
    return tuple(
        Block(*block) for block in zip(names[1:], map(frozenset, parameters[1:]), strict=False)
    )


def cut(model: Any, name: str, blocks: tuple[Block, ...], n_blocks: int) -> Any:
    """Cut a model below its last `n_blocks` blocks, into a trunk and a top (torch.fx.GraphModule).

    ``top(trunk(x))`` is the model's output before its classifier; both share their tensors with
    `model`. Parameters keep their names, with "model." before them. Raises BackboneError if the
    model cannot be traced, or more than one tensor crosses the cut.
    """
    whole = PreLogits(model).eval()
    try:
        graph = trace(whole)
    except TypeError as error:
        raise _cannot_cut(name, f"its operations cannot be traced ({error})") from error
    upper = frozenset[str]().union(*(block.parameters for block in blocks[-n_blocks:]))
    position, crossing = _find_cut(graph, whole, upper, name)
    nodes = list(graph.nodes)
    trunk = _part(whole, nodes[:position], None, crossing)
    top = _part(whole, nodes[position:], crossing, None)
    return trunk, top


def trace(module: nn.Module) -> fx.Graph:
    """Return the graph of a module's operations. Raises TypeError if it cannot be traced."""
    try:
        return _Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(module)
    except Exception as error:  # a model's own code runs on symbols, and may raise anything
        raise TypeError(reason_of(error)) from error


def check_cut(model: Any, trunk: Any, top: Any, example: torch.Tensor, name: str) -> None:
    """Raise BackboneError unless ``top(trunk(x))`` equals the model on `example` (n, 3, h, w)."""
    with torch.inference_mode():
        whole, parts = PreLogits(model)(example), top(trunk(example))
    if whole.shape != parts.shape or not torch.allclose(
        whole, parts, rtol=_TOLERANCE, atol=_TOLERANCE * float(whole.abs().max())
    ):
        raise _cannot_cut(name, "its two parts do not compute what the whole does")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Keep whole what timm says cannot be traced, and what behaves otherwise in training."""
        kinds = (*get_notrace_modules(), nn.BatchNorm2d)
        return isinstance(module, kinds) or super().is_leaf_module(module, qualified_name)


def _find_cut(
    graph: fx.Graph, whole: nn.Module, upper: frozenset[str], name: str
) -> tuple[int, fx.Node]:
    """Return where in the list of nodes the upper part begins, and the one node it needs."""
    nodes = list(graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    is_upper: dict[int, bool] = {}
    for i, node in enumerate(nodes):
        parameters = set(_parameters_of(node, whole))
        if parameters:
            is_upper[i] = bool(parameters & upper)
    first = min((i for i, above in is_upper.items() if above), default=0)
    last_below = max((i for i, above in is_upper.items() if not above), default=0)
    for position in range(first, last_below, -1):
        crossing = [
            node
            for node in nodes[:position]
            if node.op != "get_attr" and any(place[user] >= position for user in node.users)
        ]
        if len(crossing) == 1:
            return position, crossing[0]
    raise _cannot_cut(name, "more than one tensor passes into its upper blocks")


def _part(
    whole: nn.Module, nodes: list[fx.Node], entry: fx.Node | None, exit_: fx.Node | None
) -> fx.GraphModule:
    """Return the module of `nodes`, fed with the value of `entry`, giving that of `exit_`."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if entry is not None:
        copies[entry] = graph.placeholder("x")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # parameters fetched early but used here
            copies[node] = graph.node_copy(node, copied)
        return copies[node]

    for node in nodes:
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], copied))
        else:
            copied(node)
    if exit_ is not None:
        graph.output(copied(exit_))
    part = fx.GraphModule(whole, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part.eval()


def _parameters_of(node: fx.Node, whole: nn.Module) -> Iterator[str]:
    target = str(node.target)
    if node.op == "call_module":
        for parameter, _ in whole.get_submodule(target).named_parameters():
            yield f"{target}.{parameter}".removeprefix(_PREFIX)
    elif node.op == "get_attr":
        owner, _, parameter = target.rpartition(".")
        if parameter in dict(whole.get_submodule(owner).named_parameters(recurse=False)):
            yield target.removeprefix(_PREFIX)


def _classifier_parameters(model: Any) -> set[str]:
    classifier = model.get_classifier()
    inside = {id(p) for p in classifier.parameters()} if isinstance(classifier, nn.Module) else ()
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def _name_of(group: list[str], groups: list[list[str]], model: nn.Module) -> str:
    """Return the path of the module that holds most of `group` and nothing of other groups."""
    others = [p for other in groups for p in other if not set(other) & set(group)]
    path = ""
    while True:
        inside = [p.removeprefix(path).split(".") for p in group if p.startswith(path)]
        children = [parts[0] for parts in inside if len(parts) > 1]
        if not children:
            return path.rstrip(".")
        path += max(children, key=children.count) + "."
        module = model.get_submodule(path.rstrip("."))
        shared = any(p.startswith(path) for p in others)
        if not shared and not isinstance(module, (nn.Sequential, nn.ModuleList)):
            return path.rstrip(".")


def _cannot_cut(name: str, reason: str) -> BackboneError:
    return BackboneError(f"The backbone {name!r} cannot be cut at a block, because {reason}.")
