"""Float32 products with all their bits on GPUs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

_lock = threading.Lock()  # for the two below
_computing = 0  # threads in `full_precision`
_restore: list[Callable[[], Any]] = []  # the settings outside of it


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products with all their bits while any thread is in this context.

    On recent GPUs PyTorch computes float32 convolutions in TF32, with 10 bits; the settings are
    those of the whole process.
    """
    global _computing, _restore
    torch = sys.modules["torch"]  # imported by the code that made the tensors
    with _lock:
        if not _computing:
            _restore = _precision_settings()
            torch.backends.cudnn.allow_tf32 = False
            torch.set_float32_matmul_precision("highest")
        _computing += 1
    try:
        yield
    finally:
        with _lock:
            _computing -= 1
            for restore in _restore if not _computing else ():
                restore()


def _precision_settings() -> list[Callable[[], Any]]:
    """Return functions that restore the settings as they are now."""
    # PyTorch has an old and a new interface: the old one cannot be read after the new one was used,
    # and the new one does not restore all of the old one.
    torch: Any = sys.modules["torch"]
    cudnn = torch.backends.cudnn
    products = torch.backends.cuda.matmul
    functions: list[Callable[[], Any]] = [
        partial(setattr, part, "fp32_precision", part.fp32_precision)
        for part in (cudnn.conv, products)
    ]
    with suppress(RuntimeError):
        functions[0] = partial(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
    with suppress(RuntimeError):
        before = torch.get_float32_matmul_precision()
        functions[1] = partial(torch.set_float32_matmul_precision, before)
    return functions
