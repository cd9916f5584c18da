"""PyTorch's threads per operation while several threads run networks."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def one_thread_each(pool: ThreadPoolExecutor, n_threads: int) -> Iterator[None]:
    """Limit PyTorch to one thread per operation in each of the `n_threads` threads of `pool`.

    On exit the setting is restored for the calling thread and for threads that start later.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # a graph runs without it
        yield
        return
    before = torch.get_num_threads()
    barrier = threading.Barrier(n_threads)  # so that each thread runs one task

    def begin() -> None:
        barrier.wait()
        torch.set_num_threads(1)

    try:
        for task in [pool.submit(begin) for _ in range(n_threads)]:
            task.result()
        yield
    finally:
        barrier.abort()  # if a thread could not start, the others stop waiting
        torch.set_num_threads(before)
