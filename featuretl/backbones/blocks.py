"""Blocks of a timm model, and models split into a trunk and a top at the beginning of a block.

A block is the smallest repeated unit (an MBConv, bottleneck or transformer block) in the model's
``group_matcher``. The stem precedes the first block; layers between the last block and the
classifier belong to the last block. A model is split on its graph of operations (torch.fx), where
a single tensor carries everything that later operations need from earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import get_notrace_functions, get_notrace_modules, group_parameters
from torch import fx, nn

from featuretl._core.precision import full_precision
from featuretl._core.text import reason_of
from featuretl.exceptions import BackboneError

_PREFIX = "model."
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Block:
    """One block of a model: the path of its (largest) module, and its parameters' names."""

    name: str
    parameters: frozenset[str]


class PreLogits(nn.Module):
    """A timm model without its classifier, from images (n, 3, h, w) to embeddings (n, d)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed images."""
        features = self.model.forward_features(x)
        return self.model.forward_head(features, pre_logits=True).flatten(1)


def find_blocks(model: Any, name: str) -> tuple[Block, ...]:
    """Return the blocks of a model from input to output; BackboneError if it defines none."""
    try:
        groups = list(group_parameters(model, model.group_matcher(coarse=False)).values())
    except (AttributeError, TypeError, RuntimeError, AssertionError) as error:
        raise BackboneError(
            f"The backbone {name!r} does not define blocks; train the whole network with "
            "n_blocks='all'."
        ) from error
    classifier = _classifier_parameters(model)
    names = [_name_of(group, groups, model) for group in groups]
    parameters = [[p for p in group if p not in classifier] for group in groups]
    if len(groups) > 2 and len(parameters[-1]) < len(groups[-1]):
        before_classifier = parameters.pop()
        parameters[-1] += before_classifier
    return tuple(
        Block(*block) for block in zip(names[1:], map(frozenset, parameters[1:]), strict=False)
    )


def cut(model: Any, name: str, blocks: tuple[Block, ...], n_blocks: int) -> Any:
    """Split a model below its last `n_blocks` blocks into trunk and top, both torch.fx.GraphModule.

    Both share the model's tensors, named "model.<name>". Raises BackboneError if it cannot be cut.
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
    except Exception as error:  # the model's code may raise any exception on symbols
        raise TypeError(reason_of(error)) from error


def check_cut(model: Any, trunk: Any, top: Any, example: torch.Tensor, name: str) -> None:
    """Raise BackboneError unless ``top(trunk(x))`` equals the model on `example` (n, 3, h, w)."""
    with torch.inference_mode(), full_precision():
        whole, parts = PreLogits(model)(example), top(trunk(example))
    if whole.shape != parts.shape or not torch.allclose(
        whole, parts, rtol=_TOLERANCE, atol=_TOLERANCE * float(whole.abs().max())
    ):
        raise _cannot_cut(name, "its two parts do not compute what the whole model computes")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Return whether not to trace into a module: batch-norm, and what timm excludes."""
        kinds = (*get_notrace_modules(), nn.BatchNorm2d)
        return isinstance(module, kinds) or super().is_leaf_module(module, qualified_name)


def _find_cut(
    graph: fx.Graph, whole: nn.Module, upper: frozenset[str], name: str
) -> tuple[int, fx.Node]:
    """Return the position of the first node of the top, and the one node whose value it needs."""
    nodes = list(graph.nodes)
    place = {node: i for i, node in enumerate(nodes)}
    parameters = {i: set(_parameters_of(node, whole)) for i, node in enumerate(nodes)}
    first = min((i for i, names in parameters.items() if names & upper), default=0)
    last_below = max((i for i, n in parameters.items() if n and not n & upper), default=0)
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
    """Return a module of `nodes` from the value of `entry` to the value of `exit_`."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if entry is not None:
        copies[entry] = graph.placeholder("x")

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # also parameters that were fetched before the cut
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
    """Return the path of the module that holds most of `group` and no other group's parameters."""
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
