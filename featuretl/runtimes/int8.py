"""int8: an exported network with 8-bit weights and activations, in ONNX Runtime on the CPU.

Ranges of the activations are measured on crops of the two photographs that come with scikit-learn,
so that the same backbone gives the same int8 network everywhere.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_sample_images

from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.spec import QUANTIZATION
from featuretl.exceptions import BackboneError
from featuretl.runtimes.comparison import least_cosine
from featuretl.runtimes.exported import OnnxRuntime, export, keep, quiet

if TYPE_CHECKING:
    from featuretl.backbones.backbone import Backbone

LEAST_COSINE = 0.9

_NEEDED = ("onnxruntime", "onnx", "onnxscript")


def load_int8(backbone: Backbone, file: Path | None = None) -> OnnxRuntime:
    """Return what gives a backbone's embeddings in int8.

    Parameters
    ----------
    backbone : Backbone
        On the CPU.
    file : Path, optional
        Where the model is kept: read if it is there and serves, else written; to make one takes
        some ten seconds.

    Raises
    ------
    BackboneError
        If something is missing, the network cannot be quantized, or an embedding in int8 is further
        than cosine 0.9 from the one in float32.
    """
    name = backbone.spec.name
    if backbone.device.type != "cpu":
        raise BackboneError("precision='int8' runs on the CPU; use device='cpu' or 'bfloat16'.")
    if any(importlib.util.find_spec(package) is None for package in _NEEDED):
        raise BackboneError(f"precision='int8' needs: pip install {' '.join(_NEEDED)}")
    probe = backbone.batch(photograph_crops(backbone, 4))
    expected = TorchRuntime(backbone.embedding_in("float32"))(probe)
    if file is not None and file.exists():
        with contextlib.suppress(Exception):  # a damaged or foreign file is made anew
            runtime = OnnxRuntime(file.read_bytes())
            if least_cosine(expected, runtime(probe)) >= LEAST_COSINE:
                return runtime
    try:
        model = export(backbone.embedding_in("float32"), tuple(probe.shape[1:]))
        crops = photograph_crops(backbone, QUANTIZATION["crops"])
        model = quantize(model, (backbone.batch([crop]).contiguous().numpy() for crop in crops))
        runtime = OnnxRuntime(model)
        found = least_cosine(expected, runtime(probe))
    except Exception as error:  # the exporter, the quantizer and the runtime raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{name!r} cannot run in int8 ({reason}); use 'float32'.") from error
    if found < LEAST_COSINE:
        raise BackboneError(
            f"{name!r} loses too much in int8: an embedding has cosine {found:.3f} to the one in "
            "float32; use precision='float32'."
        )
    if file is not None:
        keep(model, file)
    return runtime


def photograph_crops(backbone: Backbone, n: int) -> list[Any]:
    """Return n prepared crops of two photographs, of many sizes."""
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
    from onnxruntime.quantization import (  # type: ignore[import-untyped]
        CalibrationDataReader,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import (  # type: ignore[import-untyped]
        quant_pre_process,
    )

    name = onnx.load_from_string(model).graph.input[0].name

    class Inputs(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            found = next(inputs, None)
            return None if found is None else {name: found}

    with tempfile.TemporaryDirectory() as folder, quiet():
        single, prepared, quantized = (
            Path(folder, f"{stage}.onnx") for stage in ("float32", "prepared", "int8")
        )
        single.write_bytes(model)
        quant_pre_process(single, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            Inputs(),
            per_channel=True,
            # Products of 8 x 8 bits overflow on processors without VNNI, and give other numbers.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return quantized.read_bytes()
