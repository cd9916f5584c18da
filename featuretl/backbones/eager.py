"""Runtimes in PyTorch: what computes embeddings from a network's input, and whether two agree.

Another runtime is taken in place of eager PyTorch only if it gives the same embeddings, so the
runtime is no part of a recipe. Those outside PyTorch are in `featuretl.runtimes.exported`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch
from torch import nn

from featuretl.exceptions import is_out_of_memory

LEAST_COSINE = 0.9999

Runtime = Callable[[torch.Tensor], np.ndarray]

_COMPILED_BATCH = {"cpu": 16, "cuda": 128}
_MEASURED_SECONDS = 3.0


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
                size //= 2
                if not size or not is_out_of_memory(error):
                    raise
                self._most = size
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _run(self, batch: torch.Tensor) -> np.ndarray:
        # float32 means float32: on recent GPUs convolutions default to TF32's 10 bits.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            return self._module(batch).cpu().numpy()


class CompiledRuntime(TorchRuntime):
    """PyTorch compiled by Inductor for batches of one size; smaller ones are padded to it.

    On the CPU it needs a C++ compiler. What was compiled is kept by PyTorch for later processes.

    Parameters
    ----------
    module : torch.nn.Module
        See `TorchRuntime`.
    device : torch.device
        Where the module is.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        options = {"freezing": True} if device.type == "cpu" else None
        super().__init__(torch.compile(module, dynamic=False, options=options))  # type: ignore[arg-type]
        self._most = _COMPILED_BATCH.get(device.type, 16)

    def _run(self, batch: torch.Tensor) -> np.ndarray:
        assert self._most is not None  # set by __init__  # nosec B101
        n = len(batch)
        if n < self._most:
            padding = batch[-1:].expand(self._most - n, *batch.shape[1:])
            batch = torch.cat([batch, padding])
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            return self._module(batch)[:n].cpu().numpy()


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


def images_per_second(
    runtime: Runtime, batch: torch.Tensor, pool: ThreadPoolExecutor, n_threads: int
) -> float:
    """Return how many images like those of `batch` all threads of `pool` together embed a second.

    The median of three rounds, or of as many as fit into three seconds, after one to warm up.
    """

    def round_() -> float:
        began = time.perf_counter()
        wait(futures := [pool.submit(runtime, batch) for _ in range(n_threads)])
        for future in futures:
            future.result()
        return time.perf_counter() - began

    round_()
    seconds = [round_()]
    while len(seconds) < 3 and sum(seconds) < _MEASURED_SECONDS:
        seconds.append(round_())
    return n_threads * len(batch) / statistics.median(seconds)
