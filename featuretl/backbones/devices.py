"""Devices of a parameter, and one CUDA stream per thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from featuretl._core.parameters import parameter_error

_thread_local = threading.local()


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
    """Return the torch device, after allocating a tensor on it. Raises ParameterError."""
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        expected = "'auto' or a torch device of this machine"
        raise parameter_error(owner, "device", expected, device) from error
    return resolved


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Use a CUDA stream of the calling thread's own; do nothing on other devices.

    One thread's copies then overlap another's computation; a thread waits only for its own work.
    """
    if device.type != "cuda":
        yield
        return
    streams: dict[torch.device, Any] = _thread_local.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.stream(streams[device]):
        yield
