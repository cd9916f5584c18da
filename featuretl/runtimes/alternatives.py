"""Compiled PyTorch, and the export of a network to an ONNX model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from featuretl._core.precision import full_precision
from featuretl.backbones.eager import TorchRuntime

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
