"""PyTorch's threads per operation while several threads run networks."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

# A process forked after a network ran would wait for OpenMP threads that it does not have.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


@contextlib.contextmanager
def one_thread_each(pool: ThreadPoolExecutor, n_threads: int) -> Iterator[None]:
    """Limit PyTorch to one thread per operation in each of the `n_threads` threads of `pool`.

    On exit the setting is restored for the calling thread and for threads that start later.
    """
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
