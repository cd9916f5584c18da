"""Agreement and speed of runtimes.

Another runtime replaces eager PyTorch only if it gives the same embeddings, so the runtime is no
part of a recipe.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np

LEAST_COSINE = 0.9999

_MEASURED_SECONDS = 3.0


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
    runtime: Callable[[Any], np.ndarray], batch: Any, pool: ThreadPoolExecutor, n_threads: int
) -> float:
    """Return how many images like those of `batch` all threads of `pool` together embed per second.

    It is the median of three rounds, or of those that fit into 3 s, after one to warm up.
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
