"""Quantized networks with 8-bit weights and activations, in ONNX Runtime on the CPU.

They are calibrated on scikit-learn's two photographs, so that all machines get the same network.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_sample_images

from featuretl._core.text import reason_of
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.spec import QUANTIZATION
from featuretl.exceptions import BackboneError
from featuretl.runtimes.alternatives import export, quiet
from featuretl.runtimes.choice import least_cosine
from featuretl.runtimes.onnx import OnnxRuntime, cached

if TYPE_CHECKING:
    from featuretl.backbones.backbone import Backbone

LEAST_COSINE = 0.9

_NEEDED = ("onnxruntime", "onnx", "onnxscript")


def load_int8(backbone: Backbone, file: Path | None = None) -> OnnxRuntime:
    """Return the int8 runtime of a backbone, with the model in `file` or a new one (about 10 s).

    Raises BackboneError if that fails or an embedding's cosine to float32 is below 0.9.
    """
    name = backbone.spec.name
    if backbone.device.type != "cpu":
        raise BackboneError("precision='int8' runs on the CPU only; use device='cpu'.")
    if any(importlib.util.find_spec(package) is None for package in _NEEDED):
        raise BackboneError(f"precision='int8' needs: pip install {' '.join(_NEEDED)}")
    probe = backbone.batch(photograph_crops(backbone, 4))
    module = backbone.embedding_in("float32")
    expected = TorchRuntime(module)(probe)

    def make() -> bytes:
        model = export(module, tuple(probe.shape[1:]))
        crops = photograph_crops(backbone, QUANTIZATION["crops"])
        return quantize(model, (backbone.batch([crop]).contiguous().numpy() for crop in crops))

    def start(model: bytes) -> OnnxRuntime:
        runtime = OnnxRuntime(model)
        found = least_cosine(expected, runtime(probe))
        if found < LEAST_COSINE:
            raise BackboneError(
                f"{name!r} loses too much accuracy in int8: the cosine to a float32 embedding must "
                f"be >= {LEAST_COSINE}; got {found:.3f}. Use precision='float32'."
            )
        return runtime

    try:
        return cached(file, make, start)
    except BackboneError:
        raise
    except Exception as error:  # the exporter, the quantizer and the runtime raise any exception
        raise BackboneError(
            f"{name!r} cannot run in int8 ({reason_of(error)}); use precision='float32'."
        ) from error


def photograph_crops(backbone: Backbone, n: int) -> list[Any]:
    """Return n prepared crops of two photographs, in random sizes (fixed seed)."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    crops = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        side = int(rng.integers(200, min(photograph.shape[:2])))
        top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
        crops.append(backbone.prepare(photograph[top : top + side, left : left + side].copy()))
    return crops


def quantize(model: bytes, inputs: Iterator[np.ndarray]) -> bytes:
    """Return an ONNX model with quantized operators, calibrated on inputs (1, 3, h, w)."""
    import onnx
    from onnxruntime import quantization  # type: ignore[import-untyped]
    from onnxruntime.quantization import shape_inference  # type: ignore[import-untyped]

    name = onnx.load_from_string(model).graph.input[0].name

    class Inputs(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            found = next(inputs, None)
            return None if found is None else {name: found}

    with tempfile.TemporaryDirectory() as folder, quiet():
        single, prepared, quantized = (
            Path(folder, f"{stage}.onnx") for stage in ("float32", "prepared", "int8")
        )
        single.write_bytes(model)
        shape_inference.quant_pre_process(single, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            Inputs(),
            per_channel=True,
            # On processors without VNNI, sums of 8 x 8-bit products overflow.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return quantized.read_bytes()
