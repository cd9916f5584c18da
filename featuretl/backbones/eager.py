"""Eager PyTorch as a runtime."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from featuretl._core.precision import full_precision
from featuretl.backbones.devices import to_host
from featuretl.exceptions import is_out_of_memory

Runtime = Callable[[torch.Tensor], np.ndarray]

# A process forked after a network ran would wait for OpenMP threads that it does not have.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


class TorchRuntime:
    """Eager PyTorch on any device, with smaller batches after an out-of-memory error.

    `module` maps the network's input, float32 (n, 3, h, w), to a tensor (n, d).
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._most: int | None = None

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        """Return the module's output for `batch`, (n, d)."""
        return self.start(batch)()

    def start(self, batch: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start to compute; return a function that waits for the module's output, (n, d)."""
        parts: list[Callable[[], np.ndarray]] = []
        done, size = 0, self._most or len(batch)
        while done < len(batch):
            try:
                parts.append(to_host(self._run(batch[done : done + size])))
                done += size
            except (RuntimeError, MemoryError) as error:
                size //= 2
                if not size or not is_out_of_memory(error):
                    raise
                self._most = size
        return parts[0] if len(parts) == 1 else lambda: np.concatenate([part() for part in parts])

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), full_precision():
            return self._module(batch)
