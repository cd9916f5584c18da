"""ONNX Runtime and OpenVINO on a network's graph; neither needs PyTorch."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from featuretl._core.files import replace_file

T = TypeVar("T")


class OnnxRuntime:
    """ONNX Runtime on a model from (1, 3, h, w) to (1, d), with one thread.

    Single images make all shapes static, and their activations stay in the core's cache.
    """

    def __init__(self, model: bytes) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: Any) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of the network's input, float32 (n, 3, h, w)."""
        images = np.split(np.ascontiguousarray(batch), len(batch))
        return np.concatenate([self._session.run(None, {self._input: x})[0] for x in images])


class OpenVinoRuntime:
    """OpenVINO on the same model as `OnnxRuntime`; each of `n_threads` callers uses one core.

    `precision` is "float32", or "bfloat16" on a processor with instructions for it.
    """

    def __init__(self, model: bytes, n_threads: int, precision: str = "float32") -> None:
        import openvino  # type: ignore[import-untyped]

        core = openvino.Core()
        is_half = precision == "bfloat16"
        if is_half and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeError("this processor has no instructions for bfloat16")
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if is_half else "f32",
            "NUM_STREAMS": str(n_threads),
            "INFERENCE_NUM_THREADS": str(n_threads),
        }
        self._model = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
        self._thread_local = threading.local()

    def __call__(self, batch: Any) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of the network's input, float32 (n, 3, h, w)."""
        request: Any = getattr(self._thread_local, "request", None)
        if request is None:
            request = self._thread_local.request = self._model.create_infer_request()
        images = np.split(np.ascontiguousarray(batch), len(batch))
        return np.concatenate([request.infer([x], share_inputs=True)[0].copy() for x in images])


def cached(file: Path | None, make: Callable[[], bytes], start: Callable[[bytes], T]) -> T:
    """Return `start(model)` for the model in `file`, or for a new one, which is written there.

    `start` raises an error for an unusable model.
    """
    if file is not None and file.exists():
        with contextlib.suppress(Exception):  # a damaged or foreign file is replaced
            return start(file.read_bytes())
    runtime = start(model := make())
    if file is not None:
        with contextlib.suppress(OSError):  # the file only saves time
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(file, lambda partial: partial.write_bytes(model))
    return runtime
