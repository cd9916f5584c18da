"""The measurements of gpu.py, in a process of their own.

    python benchmarks/gpu_measure.py

gpu.py starts this script twice: once for featuretl, once for the other loops, whose process never
imports featuretl. Each line on standard input is a request, JSON with a `kind` and its settings;
each line on standard output is the answer: the figures, or an `error` of one line. Models stay
loaded between requests, so that contenders can alternate.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ["SCIPY_ARRAY_API"] = "1"  # read when SciPy is imported

import numpy as np
import torch
from gpu_device import (
    Busy,
    Figures,
    is_cuda,
    measured,
    memory,
    rate_of,
    reset_memory,
    smi,
    synchronize,
    with_costs,
)

_LONGEST_BATCH = 0.5  # seconds


def machine(device: str) -> Figures:
    """Return the card, the driver, the versions and the cores."""
    found: Figures = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "busy_method": Busy(device).method,
    }
    for name in ("torch", "torchvision", "timm", "pillow", "numpy", "featuretl", "triton"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if is_cuda(device):
        properties = torch.cuda.get_device_properties(device)
        found |= {"card": properties.name, "memory_mib": properties.total_memory >> 20}
        found |= {"capability": f"{properties.major}.{properties.minor}"}
        found |= {"cards": torch.cuda.device_count(), "driver": smi("driver_version")}
    return found


def ceiling(
    network: str, precision: str, compiled: bool, batches: list[int], seconds: float, device: str
) -> Figures:
    """Return the throughput of the network alone, on batches that are on the device already."""
    backbone = _backbone(network, "bfloat16" if precision == "bfloat16" else "float32", device)
    module: Any = torch.compile(backbone.embedding) if compiled else backbone.embedding
    by_batch: Figures = {}
    best: Figures = {"images_per_second": 0.0}
    began = time.perf_counter()
    with torch.no_grad(), _precision(precision):
        for n in batches:
            batch = torch.randn((n, *backbone.preprocessing.input_size), device=device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            reset_memory(device)
            try:
                module(batch)
                synchronize(device)
                start = {} if by_batch else {"first_seconds": time.perf_counter() - began}
                rate = rate_of(partial(module, batch), n, seconds, device)
            except torch.OutOfMemoryError:
                by_batch[str(n)] = "out of memory"
                break
            by_batch[str(n)] = rate
            best |= start
            if rate > best["images_per_second"]:
                best |= {"images_per_second": rate, "batch": n, **memory(device)}
            if n / rate > _LONGEST_BATCH:  # larger ones gain nothing
                break
    return {**best, "by_batch": by_batch}


def agreement(network: str, precision: str, paths: list[str], device: str) -> Figures:
    """Return the cosines between embeddings of photographs on the device and on the CPU."""
    from featuretl.backbones.eager import TorchRuntime
    from featuretl.images.inputs import read

    on_cpu = _backbone(network, "float32", "cpu")
    inputs = [on_cpu.prepare(read(path).pixels()) for path in paths]
    expected = on_cpu.embed(inputs).astype(np.float64)
    backbone = _backbone(network, "bfloat16" if precision == "bfloat16" else "float32", device)
    if precision == "tf32":  # featuretl never uses it
        with torch.inference_mode(), _precision(precision):
            found = backbone.embedding(backbone.batch(inputs)).cpu().numpy()
    else:
        found = TorchRuntime(backbone.embedding)(backbone.batch(inputs))
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found.astype(np.float64), axis=1)
    cosines = (expected * found).sum(axis=1) / norms
    return {"least_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}


def decoding(paths: list[str]) -> Figures:
    """Return the rate at which all cores read, decode, resize and crop, without a network.

    Each core has a process of its own: threads of one process wait for each other.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    n = len(os.sched_getaffinity(0))
    parts = [paths[start : start + 16] for start in range(0, len(paths), 16)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n, context) as pool:
        list(pool.map(_prepare, [paths[:1]] * 4 * n))  # all processes have started
        found = measured(lambda: list(pool.map(_prepare, parts)), len(paths), "cpu")
    return {**found, "cores_busy": None}  # of processes that have not ended


def _prepare(paths: list[str]) -> None:
    from featuretl.images.inputs import read

    torch.set_num_threads(1)
    for path in paths:
        _backbone("test_resnet@224", "float32", "cpu").prepare(read(path).pixels())


def extraction(
    network: str, precision: str, runtime: str, source: str, paths: list[str], device: str
) -> Figures:
    """Embed with featuretl into an empty store: from files, arrays, or shards."""
    from PIL import Image

    from featuretl import EmbeddingStore, extract

    backbone = _backbone(network, precision, device)
    images: Any = paths
    if source == "arrays":
        images = [np.array(Image.open(path).convert("RGB")) for path in paths]
        for number, image in enumerate(images):  # the files differ in a comment only
            image[0, 0] = number >> 16, number >> 8 & 255, number & 255
    with tempfile.TemporaryDirectory() as folder:
        stores = (EmbeddingStore(Path(folder, str(i))) for i in range(2))
        options: Any = {"runtime": runtime}
        extract(images[: len(images) // 8 + 1], backbone, store=next(stores), **options)  # warm up

        reports: list[tuple[float, int]] = []

        def work() -> Any:
            options["progress"] = lambda done: reports.append((time.perf_counter(), done.done))
            return extract(images, backbone, store=next(stores), **options)

        return with_costs(work, len(images), device) | _later(reports, len(images) // 3)


def shards(network: str, precision: str, workers: int, tars: list[str], device: str) -> Figures:
    """Embed tar files with featuretl into a shared store, in this process or in `workers`."""
    from featuretl import extract_shards

    loaded = _backbone(network, precision, device).spec
    reports: list[tuple[float, int]] = []

    def report(done: Any) -> None:
        reports.append((time.perf_counter(), done.done))

    with tempfile.TemporaryDirectory() as folder:
        n_jobs = max(1, len(os.sched_getaffinity(0)) // workers)
        options: Any = {"store": folder, "device": device, "workers": workers, "n_jobs": n_jobs}

        def work() -> Any:
            return extract_shards(tars, loaded, runtime="torch", progress=report, **options)

        found = with_costs(work, 0, device)
    found["images_per_second"] = reports[-1][1] / found["seconds"]
    return found | _later(reports, 1)


def heads(n: int, d: int, device: str) -> Figures:
    """Fit a linear probe, and search 10 values of C in 5 folds, on rows (n, d) on the device."""
    import sklearn

    from featuretl import LinearProbeClassifier

    generator = torch.Generator(device).manual_seed(0)
    X = torch.randn((n, d), device=device, generator=generator)
    noise = 20 * torch.randn((n, 10), device=device, generator=generator)
    y = (X @ torch.randn((d, 10), device=device, generator=generator) + noise).argmax(1).cpu()
    found: Figures = {"rows": n, "columns": d}
    with sklearn.config_context(array_api_dispatch=True):
        for name, C in (("fit_seconds", 0.01), ("search_seconds", "cv")):
            began = time.perf_counter()
            LinearProbeClassifier(C, Cs=np.logspace(-5, -0.5, 10)).fit(X, y.numpy())
            found[name] = time.perf_counter() - began
    return found


def fine_tuning(
    network: str, precision: str, cached: bool, paths: list[str], device: str
) -> Figures:
    """Fine-tune the last block for four epochs; the classes are of no meaning."""
    from featuretl import FineTuneClassifier, load_backbone
    from featuretl.finetune.training import Training

    with tempfile.TemporaryDirectory() as cache:
        model = FineTuneClassifier(
            load_backbone(network, weights="random", device=device),
            device=device,
            n_blocks=1,
            learning_rate=0.001,
            epochs=4,
            augment="light" if cached else "none",
            cache_trunk=cached,
            cache=cache,
            training=Training(precision=precision),
            random_state=0,
        )
        began = time.perf_counter()
        model.fit(paths, [number // 7 % 2 for number in range(len(paths))])
        seconds = time.perf_counter() - began
    epochs = list(map(float, model.history_["seconds"]))
    return {"images": len(paths), "seconds": seconds, "epoch_seconds": statistics.median(epochs)}


def _later(reports: list[tuple[float, int]], least: int) -> Figures:
    """Return the rate after the first `least` images, when processes and kernels are ready."""
    first = next((report for report in reports if report[1] >= least), reports[-1])
    (began, before), (ended, done) = first, reports[-1]
    if ended - began < 0.1:
        return {}
    return {"later_images_per_second": (done - before) / (ended - began)}


def usual_loop(**settings: Any) -> Figures:
    """Run the loop that users write by hand."""
    import usual_loop as script

    return _script(script.main, **settings)


def timm_loader(**settings: Any) -> Figures:
    """Run timm's loader with worker processes."""
    import peer_loops

    return _script(peer_loops.main, peer="timm loader", **settings)


KINDS: dict[str, Callable[..., Figures]] = {
    "machine": machine,
    "ceiling": ceiling,
    "agreement": agreement,
    "decoding": decoding,
    "extraction": extraction,
    "shards": shards,
    "heads": heads,
    "fine-tuning": fine_tuning,
    "usual loop": usual_loop,
    "timm loader": timm_loader,
}


def _script(main: Callable[..., float], **settings: Any) -> Figures:
    paths, device = settings["paths"], settings["device"]
    with tempfile.TemporaryDirectory() as folder:
        seconds = []

        def work() -> None:
            seconds.append(main(output=str(Path(folder, "rows.npy")), **settings))

        found = measured(work, len(paths), device)
    # The script's own time leaves out loading the network, the busy cores do not.
    return {**found, "seconds": seconds[0], "images_per_second": len(paths) / seconds[0]}


@lru_cache(maxsize=4)
def _backbone(network: str, precision: str, device: str) -> Any:
    from featuretl import load_backbone
    from featuretl.backbones.catalog import packaged_file

    name, _, size = network.partition("@")
    return load_backbone(
        name,
        weights="auto" if packaged_file(name) else "random",
        precision=precision,
        image_size=int(size) if size else None,
        device=device,
    )


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def main() -> None:
    """Answer requests until standard input ends."""
    # Libraries and worker processes print on standard error; answers stay one line each.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = KINDS[request.pop("kind")](**request)
        except BaseException as error:  # out of memory, a missing operation, a failed compilation
            text = " ".join(f"{type(error).__name__}: {error}".split())
            answer = {"error": text[:500]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
