"""Alternatives to eager PyTorch: compiled PyTorch; on the CPU, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from featuretl._core.files import replace_file
from featuretl._core.precision import full_precision
from featuretl.backbones.eager import TorchRuntime

T = TypeVar("T")

_COMPILED_BATCH = {"cpu": 16, "cuda": 128}


class CompiledRuntime(TorchRuntime):
    """PyTorch compiled by Inductor for one batch size, to which smaller batches are padded.

    On the CPU it needs a C++ compiler. PyTorch caches the compiled code on disk.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        options = {"freezing": True} if device.type == "cpu" else None
        super().__init__(torch.compile(module, dynamic=False, options=options))  # type: ignore[arg-type]
        self._most = _COMPILED_BATCH.get(device.type, 16)

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        assert self._most is not None  # set by __init__  # nosec B101
        n = len(batch)
        if n < self._most:
            padding = batch[-1:].expand(self._most - n, *batch.shape[1:])
            batch = torch.cat([batch, padding])
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), full_precision():
            return self._module(batch)[:n]


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

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of the network's input, float32 (n, 3, h, w)."""
        images = np.split(batch.contiguous().numpy(), len(batch))
        return np.concatenate([self._session.run(None, {self._input: x})[0] for x in images])


class OpenVinoRuntime:
    """OpenVINO on the same model as `OnnxRuntime`; each of `n_threads` callers uses one core."""

    def __init__(self, model: bytes, n_threads: int) -> None:
        import openvino  # type: ignore[import-untyped]

        core = openvino.Core()
        # By default OpenVINO computes in bfloat16 if the processor supports it.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(n_threads),
            "INFERENCE_NUM_THREADS": str(n_threads),
        }
        self._model = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
        self._thread_local = threading.local()

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of the network's input, float32 (n, 3, h, w)."""
        request: Any = getattr(self._thread_local, "request", None)
        if request is None:
            request = self._thread_local.request = self._model.create_infer_request()
        images = np.split(batch.contiguous().numpy(), len(batch))
        return np.concatenate([request.infer([x], share_inputs=True)[0].copy() for x in images])


def export(module: torch.nn.Module, input_size: tuple[int, ...]) -> bytes:
    """Export a module to an ONNX model for batches of one image, (1, *input_size)."""
    return _exported(module, torch.zeros((1, *input_size)))


def export_any_number(
    module: torch.nn.Module, input_size: tuple[int, ...], inputs: list[str], outputs: list[str]
) -> bytes:
    """Export a module to an ONNX model for inputs (n, *input_size), with any n and given names."""
    # With an example of one row, the exporter would make the batch size a constant.
    return _exported(
        module,
        torch.zeros((2, *input_size)),
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        input_names=inputs,
        output_names=outputs,
    )


def _exported(module: torch.nn.Module, example: torch.Tensor, **options: Any) -> bytes:
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(module, (example,), dynamo=True, verbose=False, **options)
    assert program is not None  # because of dynamo=True  # nosec B101
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter, which writes warnings, logs and lines on stdout."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


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
