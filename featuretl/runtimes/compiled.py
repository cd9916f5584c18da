"""PyTorch, compiled by Inductor."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from featuretl.backbones.eager import TorchRuntime

_COMPILED_BATCH = {"cpu": 16, "cuda": 128}


class CompiledRuntime(TorchRuntime):
    """PyTorch compiled by Inductor for batches of one size; smaller ones are padded to it.

    On the CPU it needs a C++ compiler. PyTorch caches the compiled code for later processes.
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
