"""Runtimes outside PyTorch, on the CPU: ONNX Runtime and OpenVINO, on one exported model."""

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

T = TypeVar("T")


class OnnxRuntime:
    """ONNX Runtime on a model from (1, 3, h, w) to (1, d), in the calling thread alone.

    With one image per batch every shape is known beforehand, so that padding is folded away, and
    the activations stay in the core's cache.
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
    """OpenVINO on a model as of `OnnxRuntime`; each of `n_threads` callers uses one core."""

    def __init__(self, model: bytes, n_threads: int) -> None:
        import openvino  # type: ignore[import-untyped]

        core = openvino.Core()
        # Left to itself, OpenVINO computes in bfloat16 where the processor has it.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(n_threads),
            "INFERENCE_NUM_THREADS": str(n_threads),
        }
        self._model = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
        self._of_thread = threading.local()

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        """Return the embeddings, float32 (n, d), of the network's input, float32 (n, 3, h, w)."""
        request: Any = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._model.create_infer_request()
        images = np.split(batch.contiguous().numpy(), len(batch))
        rows = [request.infer([x], share_inputs=True)[0].copy() for x in images]
        return np.concatenate(rows)


def export(module: torch.nn.Module, input_size: tuple[int, ...]) -> bytes:
    """Return a module as an ONNX model for batches of one image, (1, *input_size)."""
    return _exported(module, torch.zeros((1, *input_size)))


def export_any_number(
    module: torch.nn.Module, input_size: tuple[int, ...], inputs: list[str], outputs: list[str]
) -> bytes:
    """Return a module as an ONNX model from (n, *input_size), for any n, with the given names."""
    # Of one row, the exporter would take the size for a constant.
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
    assert program is not None  # with dynamo=True there is one  # nosec B101
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter, which reports on itself in warnings, in logs and on stdout."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def cached(file: Path | None, make: Callable[[], bytes], start: Callable[[bytes], T]) -> T:
    """Return the runtime that `start` gives for the model in `file`, or for one made and written now.

    `start` raises for a model that does not serve.
    """
    if file is not None and file.exists():
        with contextlib.suppress(Exception):  # a damaged or foreign file is replaced
            return start(file.read_bytes())
    runtime = start(model := make())
    if file is not None:
        with contextlib.suppress(OSError):  # without it, only time is lost
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(file, lambda partial: partial.write_bytes(model))
    return runtime
