"""The ONNX graph of a network: backbone and head, with metadata for servers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

import featuretl
from featuretl._core.types import Array
from featuretl.models.card import Card
from featuretl.networks.heads import Head
from featuretl.networks.network import Network
from featuretl.runtimes.alternatives import export_any_number
from featuretl.runtimes.lite import lite_graph, lite_recipe

INPUT, _EMBEDDING = "images", "embedding"
_OF_CARD = ("model", "created", "versions", "strategy", "decision", "metrics", "data")


class Outputs(nn.Module):
    """A head as a module from embeddings (n, d) to the outputs of the graph, listed in `names`."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        probabilities = ["probabilities"] if head.has_probabilities else []
        classes = ["decision", *probabilities, "label"]
        self.names = ["prediction"] if head.classes is None else classes

    def forward(self, embedding: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors listed in `names`, with the shapes of the model in Python."""
        head, values = self.head, self.head(embedding)
        if head.classes is None:
            return (values[:, 0] if head.flat else values,)
        is_binary = len(head.classes) == 2 and head.link != "labels"
        decision = values[:, 0] if is_binary else values
        probabilities = [head.probabilities(values)] if head.has_probabilities else []
        return (decision, *probabilities, head.chosen(values))


def convert(network: Network) -> tuple[bytes, bytes, list[str]]:
    """Return the ONNX models of the backbone and of the head, and the names of the outputs."""
    import onnx

    outputs = Outputs(network.head)
    size = network.backbone.preprocessing.input_size
    with torch.no_grad():
        d = network.embedding(torch.zeros((1, *size))).shape[1]
    head = export_any_number(outputs, (d,), [_EMBEDDING], outputs.names)
    spec = network.backbone.spec
    if lite_recipe(spec) and not network.tuned:
        opset = onnx.load_from_string(head).opset_import[0].version
        backbone = lite_graph(spec.name, "n", (INPUT, _EMBEDDING), opset)
    else:
        backbone = export_any_number(network.embedding, size, [INPUT], [_EMBEDDING])
    return backbone, head, outputs.names


def merged(backbone: bytes, head: bytes, metadata: dict[str, str]) -> bytes:
    """Return the ONNX model that applies `head` to the output of `backbone`."""
    import onnx

    first, second = onnx.load_from_string(backbone), onnx.load_from_string(head)
    # The quantizer changes the version of the backbone; either version works.
    second.ir_version = first.ir_version
    prefixed = onnx.compose.add_prefix(
        second, "head/", rename_inputs=False, rename_outputs=False, inplace=True
    )
    whole = onnx.compose.merge_models(first, prefixed, io_map=[(_EMBEDDING, _EMBEDDING)])
    onnx.helper.set_model_props(whole, metadata)
    onnx.checker.check_model(whole)
    return whole.SerializeToString()


def metadata_of(network: Network, card: Card, precision: str) -> dict[str, str]:
    """Return the metadata of the file; see `export_model`."""
    head, backbone = network.head, network.backbone
    size = {k: v for k, v in backbone.preprocessing.recipe().items() if k != "implementation"}
    task = "multilabel" if head.link == "labels" else "classification"
    recipe = backbone.recipe["backbone"]
    return {
        "featuretl_version": featuretl.__version__,
        "task": "regression" if head.classes is None else task,
        "classes": json.dumps(head.classes or []),
        "preprocessing": json.dumps(size),
        "precision": precision,
        "backbone": recipe["name"],
        "weights": recipe["tensors"],
        "card": json.dumps({name: card[name] for name in _OF_CARD if name in card}),
    }


class Session:
    """An ONNX model in ONNX Runtime, on the CPU."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, batches: Iterator[torch.Tensor]) -> dict[str, Array]:
        """Return the concatenated outputs of batches, float32 (n, 3, height, width)."""
        found = [self._session.run(None, {INPUT: b.contiguous().numpy()}) for b in batches]
        columns = map(np.concatenate, zip(*found, strict=True))
        return dict(zip(self._names, columns, strict=True))
