"""Devices: which ones a parameter means, and a stream of its own on a GPU for each thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from featuretl._core.parameters import parameter_error

_of_thread = threading.local()


def devices_of(owner: str, device: Any) -> list[torch.device]:
    """Return the devices that the parameter `device` of `owner`, or a list of such, means.

    "auto" is every CUDA device, or the CPU where there is none; "cuda" is every CUDA device. Raises
    ParameterError if this machine has no such device.
    """
    n_gpus = count_gpus()
    if n_gpus and device in ("auto", "cuda"):
        return [torch.device("cuda", index) for index in range(n_gpus)]
    listed = list(device) if isinstance(device, (list, tuple)) else [device]
    if not listed:
        raise parameter_error(owner, "device", "at least one torch device", device)
    return [usable_device(owner, "cpu" if one == "auto" else one) for one in listed]


def count_gpus() -> int:
    """Return how many CUDA devices this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def usable_device(owner: str, device: Any) -> torch.device:
    """Return a torch device that tensors can be put on. Raises ParameterError."""
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        expected = "'auto' or a torch device of this machine"
        raise parameter_error(owner, "device", expected, device) from error
    return resolved


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a stream of the calling thread's own where `device` is a GPU.

    One thread's copies then overlap another's computation, and a thread waits for its own work only.
    """
    if device.type != "cuda":
        yield
        return
    streams: dict[torch.device, Any] = _of_thread.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.stream(streams[device]):
        yield
