"""Devices of a parameter, CUDA streams, and copies that do not wait."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from featuretl._core.parameters import parameter_error


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
        return torch.device("mps", 0)
    return torch.device("xpu", 0) if torch.xpu.is_available() else None


def count_gpus() -> int:
    """Return the number of CUDA devices visible to this process."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def room_on(device: torch.device) -> int:
    """Return the free memory of a CUDA device in bytes; 0 for others, which share memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


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
    """Compute on featuretl's own stream of a CUDA device; do nothing on other devices."""
    if device.type != "cuda":
        yield
        return
    stream = _stream("compute", device)
    stream.wait_stream(torch.cuda.current_stream(device))  # which may still make the weights
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield


@functools.cache  # PyTorch's unused device memory belongs to a stream, so streams are kept
def _stream(purpose: str, device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def staging_memory(n: int, example: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return memory for the inputs of `n` images like `example`, (n, *shape), channels last.

    A copy to a CUDA device waits for nothing because the memory is page-locked ("pinned").
    """
    *views, channels, height, width = example.shape
    shape = (n, *views, height, width, channels)
    memory = torch.empty(shape, dtype=example.dtype, pin_memory=device.type == "cuda")
    return memory.movedim(-1, -3)


def from_channels_last(block: np.ndarray) -> Sequence[torch.Tensor]:
    """Return the images (c, h, w) of an array (n, .., h, w, c), which share its memory."""
    return torch.from_numpy(block).movedim(-1, -3).unbind()


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor; on CUDA only the calling thread's current stream waits for it."""
    if device.type != "cuda":
        return x.to(device)
    # PyTorch keeps pinned memory until a copy from it has ended. From other memory, the copy
    # would wait for all work on the stream.
    return x.pin_memory().to(device, non_blocking=True)


def copy_ahead(staged: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy `staged` while the current stream computes, which waits for it before its next work.

    The caller must not change `staged` before that work has ended.
    """
    if device.type != "cuda":
        return staged.to(device)
    current, copying = torch.cuda.current_stream(device), _stream("copy", device)
    with torch.cuda.stream(copying):
        copied = staged.to(device, non_blocking=True)
    current.wait_stream(copying)
    # The memory belongs to the copying stream: a later copy must not take it while `current` reads.
    copied.record_stream(current)
    return copied


def to_host(rows: torch.Tensor) -> Callable[[], np.ndarray]:
    """Copy `rows` to the CPU; return a function, for any thread, that waits and returns them."""
    if rows.device.type != "cuda":
        on_cpu = rows.cpu().numpy()
        return lambda: on_cpu
    pinned = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
    pinned.copy_(rows, non_blocking=True)
    copied = torch.cuda.current_stream(rows.device).record_event()

    def wait() -> np.ndarray:
        copied.synchronize()  # errors of the computation are raised here
        return pinned.numpy().copy()

    return wait
