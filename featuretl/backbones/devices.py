"""Devices of a parameter, one CUDA stream per thread, and the precision of float32."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from featuretl._core.parameters import parameter_error

_thread_local = threading.local()
_lock = threading.Lock()  # for the two below
_computing = 0  # threads in `full_precision`
_restore: list[Callable[[], Any]] = []  # the settings outside of it


def devices_of(owner: str, device: Any) -> list[torch.device]:
    """Return the devices named by the parameter `device`, a device or a list of devices.

    "auto" is every CUDA device, or else the `accelerator`, or the CPU; "cuda" is every CUDA device.
    Raises ParameterError for a device that this machine lacks.
    """
    n_gpus = count_gpus()
    if n_gpus and device in ("auto", "cuda"):
        return [torch.device("cuda", index) for index in range(n_gpus)]
    listed = list(device) if isinstance(device, (list, tuple)) else [device]
    if not listed:
        raise parameter_error(owner, "device", "at least one torch device", device)
    auto = accelerator() or "cpu"
    return [usable_device(owner, auto if one == "auto" else one) for one in listed]


def accelerator() -> torch.device | None:
    """Return Apple's MPS or an Intel XPU, whose embeddings must be compared with the CPU's."""
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("xpu") if torch.xpu.is_available() else None


def count_gpus() -> int:
    """Return the number of CUDA devices visible to this process."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def usable_device(owner: str, device: Any) -> torch.device:
    """Return the torch device, after allocating a tensor on it. Raises ParameterError.

    "cuda" becomes the current device with its number, which differs between threads.
    """
    try:
        resolved = torch.device(device)
        used = torch.empty(0, device=resolved).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        expected = "'auto' or a torch device of this machine"
        raise parameter_error(owner, "device", expected, device) from error
    return used if resolved.index is None else resolved


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Use a CUDA stream of the calling thread's own; do nothing on other devices.

    One thread's copies then overlap another's computation; a thread waits only for its own work,
    and for what was queued before, such as the conversion of weights, on the stream it leaves.
    """
    if device.type != "cuda":
        yield
        return
    streams: dict[torch.device, Any] = _thread_local.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    streams[device].wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.device(device), torch.cuda.stream(streams[device]):
        yield


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products with all their bits while any thread is in this context.

    On recent GPUs PyTorch computes float32 convolutions in TF32, with 10 bits; the settings are
    those of the whole process.
    """
    global _computing, _restore
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
    """Return functions that restore the settings as they are now.

    PyTorch has an old and a new interface to them; the old one cannot be read after the new one was
    used, and the new one does not restore all of the old one.
    """
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul
    functions: list[Callable[[], Any]] = [
        partial(setattr, part, "fp32_precision", part.fp32_precision)
        for part in (cudnn.conv, products)
    ]
    with contextlib.suppress(RuntimeError):
        functions[0] = partial(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
    with contextlib.suppress(RuntimeError):
        before = torch.get_float32_matmul_precision()
        functions[1] = partial(torch.set_float32_matmul_precision, before)
    return functions
