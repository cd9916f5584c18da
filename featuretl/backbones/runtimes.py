"""Runtimes: what computes embeddings from a network's input, eager PyTorch or ONNX Runtime.

All compute in float32, and one is taken in place of PyTorch only if it gives the same embeddings,
so the runtime is no part of a recipe.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from featuretl.backbones.embedding import Embedding
from featuretl.exceptions import BackboneError

LEAST_COSINE = 0.9999

Runtime = Callable[[torch.Tensor], np.ndarray]

_NEEDED = ("onnxruntime", "onnx", "onnxscript")


def has_onnx() -> bool:
    """Return whether what runs and what makes ONNX models is installed."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


class TorchRuntime:
    """Eager PyTorch, on any device; where memory does not suffice, in smaller batches from then on.

    Parameters
    ----------
    module : torch.nn.Module
        From the network's input, float32 (n, 3, h, w), to a tensor (n, d).
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._most: int | None = None

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        """Return what the module gives for `batch`: (n, d)."""
        rows: list[np.ndarray] = []
        done, size = 0, self._most or len(batch)
        while done < len(batch):
            try:
                rows.append(self._run(batch[done : done + size]))
                done += size
            except (RuntimeError, MemoryError) as error:
                size = min(size, len(batch)) // 2
                if not size or not _is_out_of_memory(error):
                    raise
                self._most = size
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _run(self, batch: torch.Tensor) -> np.ndarray:
        # float32 means float32: on recent GPUs convolutions default to TF32's 10 bits.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            return self._module(batch).cpu().numpy()


class OnnxRuntime:
    """ONNX Runtime on the CPU, in the calling thread alone, image by image.

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


def load_onnx(embedding: Embedding, probe: torch.Tensor, file: Path | None) -> OnnxRuntime:
    """Return a module as an ONNX model that gives the same embeddings.

    Parameters
    ----------
    embedding : Embedding
    probe : torch.Tensor of shape (n, 3, h, w), float32
        Inputs to compare by.
    file : Path or None
        Where the model is kept: read if it is there and agrees, else written.

    Raises
    ------
    BackboneError
        If the module cannot be exported, or the model disagrees with it.
    """
    expected = TorchRuntime(embedding)(probe)
    if file is not None and file.exists():
        with contextlib.suppress(Exception):  # a damaged or foreign file is made anew
            runtime = OnnxRuntime(file.read_bytes())
            if agree(expected, runtime(probe)):
                return runtime
    try:
        model = _export(embedding, tuple(probe.shape[1:]))
        runtime = OnnxRuntime(model)
        found = runtime(probe)
    except Exception as error:  # the exporter and the runtime raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"This backbone cannot run in ONNX Runtime ({reason}); use runtime='torch'."
        ) from error
    if not agree(expected, found):
        raise BackboneError(
            "ONNX Runtime does not give the embeddings that PyTorch gives; use runtime='torch'."
        )
    if file is not None:
        _keep(model, file)
    return runtime


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)


def agree(expected: np.ndarray, found: np.ndarray) -> bool:
    """Return whether all rows of (n, d) and (n, d) agree: cosine >= `LEAST_COSINE`."""
    return expected.shape == found.shape and least_cosine(expected, found) >= LEAST_COSINE


def least_cosine(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the least cosine between rows of (n, d) and (n, d); -1 if one is not finite."""
    if not np.isfinite(found).all():
        return -1.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


def seconds_per_image(runtime: Runtime, batch: torch.Tensor, repeats: int = 5) -> float:
    """Return the median time of an image in `batch`, in a thread of its own."""
    runtime(batch)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        runtime(batch)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / len(batch)


def _export(embedding: Embedding, input_size: tuple[int, ...]) -> bytes:
    example = torch.zeros((1, *input_size))
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(embedding, (example,), dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports on itself in warnings, in logs and on stdout."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _keep(model: bytes, file: Path) -> None:
    """Write a file that appears under its name when it is whole; without one, time is lost only."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.urandom(4).hex()}.partial")
        try:
            partial.write_bytes(model)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
