"""PyTorch's threads per operation, where several threads run networks at the same time."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

# A child forked after a network ran would wait for OpenMP's other threads, which it does not have.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@contextlib.contextmanager
def one_thread_each(pool: ThreadPoolExecutor, n_threads: int) -> Iterator[None]:
    """Let PyTorch use one thread for an operation in each of the `n_threads` threads of `pool`.

    The setting of the calling thread, and of threads that start later, is restored.
    """
    before = torch.get_num_threads()
    together = threading.Barrier(n_threads)  # a task for each thread, none for any twice

    def begin() -> None:
        together.wait()
        torch.set_num_threads(1)

    try:
        for task in [pool.submit(begin) for _ in range(n_threads)]:
            task.result()
        yield
    finally:
        together.abort()  # nobody waits for a thread that could not be started
        torch.set_num_threads(before)
