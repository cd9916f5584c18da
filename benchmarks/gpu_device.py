"""How long, how busy and how much memory: of a device, and of the processes that feed it."""

from __future__ import annotations

import contextlib
import resource
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

Figures = dict[str, Any]

_PERIOD = 0.1  # seconds between two samples of the driver's utilisation


def with_costs(work: Callable[[], Any], n_images: int, device: str) -> Figures:
    """Run an extraction; return its figures, its runtime and its costs."""
    done: list[Any] = []
    found = measured(lambda: done.append(work()), n_images, device)
    found["runtime"] = done[0].statistics.runtime
    found["core_seconds"] = {k: round(v, 3) for k, v in done[0].statistics.costs.items()}
    return found


def measured(work: Callable[[], Any], n_images: int, device: str) -> Figures:
    """Run `work`; return its seconds, its rate, and how busy the cores and the device were."""
    reset_memory(device)
    with Busy(device) as busy:
        cpu, began = _processor_seconds(), time.perf_counter()
        work()
        synchronize(device)
        seconds = time.perf_counter() - began
        cpu = _processor_seconds() - cpu
    return {
        "seconds": seconds,
        "images": n_images,
        "images_per_second": n_images / seconds,
        "cores_busy": cpu / seconds,
        "device_busy": busy.share,
        **memory(device),
    }


class Busy:
    """The mean share of the time in which a kernel ran, as the driver samples it; None without."""

    share: float | None = None

    def __init__(self, device: str) -> None:
        self.method = "none"
        if is_cuda(device):
            self.method = "nvidia-smi" if shutil.which("nvidia-smi") else "nvml"
            with contextlib.suppress(Exception):
                torch.cuda.utilization(device)  # needs the package nvidia-ml-py
                self.method = "nvml"
        self._device, self._samples = device, list[float]()
        self._stop = threading.Event()

    def __enter__(self) -> Busy:
        self._process = None
        if self.method == "nvidia-smi":
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            command = ["nvidia-smi", *_selected(), *query, f"--loop-ms={int(1000 * _PERIOD)}"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it takes a second to start
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        with contextlib.suppress(Exception):
            if self._process is not None and self._process.stdout is not None:
                self._samples.extend(float(line) for line in self._process.stdout)
            while self.method == "nvml" and not self._stop.wait(_PERIOD):
                self._samples.append(float(torch.cuda.utilization(self._device)))

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._thread.join(5)
        if self._samples:
            self.share = statistics.fmean(self._samples) / 100


def rate_of(call: Callable[[], Any], n: int, seconds: float, device: str) -> float:
    """Return the median rate of three rounds, each of `seconds` after a warm-up."""
    call()
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    calls = max(1, round(seconds / (time.perf_counter() - began)))
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        rates.append(n * calls / (time.perf_counter() - began))
    return statistics.median(rates)


def _processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in used)


def is_cuda(device: str) -> bool:
    """Return whether a device is a CUDA device."""
    return torch.device(device).type == "cuda"


def synchronize(device: str) -> None:
    """Wait for the work of a CUDA device."""
    if is_cuda(device):
        torch.cuda.synchronize(device)


def reset_memory(device: str) -> None:
    """Free unused memory of a CUDA device, and begin to look for its peak."""
    if is_cuda(device):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: str) -> Figures:
    """Return the peak of memory since `reset_memory`."""
    if not is_cuda(device):
        return {"peak_device_mib": None}
    return {"peak_device_mib": torch.cuda.max_memory_allocated(device) >> 20}


def _selected() -> list[str]:
    """Return the option of nvidia-smi that selects PyTorch's first device."""
    uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return [] if uuid is None else [f"--id=GPU-{uuid}"]


def smi(what: str) -> str | None:
    """Return a fact that nvidia-smi knows; None without it."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *_selected(), f"--query-gpu={what}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip().splitlines()[0]
    return None
