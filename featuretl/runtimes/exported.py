"""Runtimes outside PyTorch, on the CPU: ONNX Runtime and OpenVINO, on one exported model."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featuretl._core.files import replace_file


class OnnxRuntime:
    """ONNX Runtime, in the calling thread alone, image by image.

    With a batch of one every shape is known beforehand, so that padding is folded away, and the
    activations stay in the core's cache.

    Parameters
    ----------
    model : bytes
        An ONNX model of one input (1, 3, h, w) and one output (1, d).
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
        images = batch.contiguous().numpy()
        rows = [
            self._session.run(None, {self._input: images[i : i + 1]})[0] for i in range(len(images))
        ]
        return np.concatenate(rows)


class OpenVinoRuntime:
    """OpenVINO, image by image; each thread that calls has one of the processor's cores.

    Parameters
    ----------
    model : bytes
        See `OnnxRuntime`.
    n_threads : int
        How many threads will call at once.
    """

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
        images = batch.contiguous().numpy()
        return np.concatenate([self._embed(images[i : i + 1]) for i in range(len(images))])

    def _embed(self, image: np.ndarray) -> np.ndarray:
        request: Any = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._model.create_infer_request()
        return request.infer([image], share_inputs=True)[0].copy()


def export(module: torch.nn.Module, input_size: tuple[int, ...]) -> bytes:
    """Return a module as an ONNX model for batches of one image, (1, *input_size)."""
    return _exported(module, torch.zeros((1, *input_size)))


def export_any_number(
    module: torch.nn.Module, input_size: tuple[int, ...], inputs: list[str], outputs: list[str]
) -> bytes:
    """Return a module as an ONNX model from (n, *input_size), whatever n, with names as given."""
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


def keep(model: bytes, file: Path) -> None:
    """Write a file that appears under its name when it is whole; without one, time is lost only."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(file, lambda partial: partial.write_bytes(model))
