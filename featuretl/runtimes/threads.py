"""How many threads PyTorch uses for one operation, where several threads run networks at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from featuretl._core.forks import begin_again_after_fork


class ForkedChildren:
    """Children forked after a network ran: OpenMP's other threads are not there to be waited for."""

    def begin_in_child(self) -> None:
        """Let PyTorch use one thread for an operation, as its own data loaders do."""
        torch.set_num_threads(1)


_FORKED_CHILDREN = ForkedChildren()
begin_again_after_fork(_FORKED_CHILDREN)


@contextlib.contextmanager
def one_thread_each(pool: ThreadPoolExecutor, n_threads: int) -> Iterator[None]:
    """Let PyTorch use one thread for an operation in each of the `n_threads` threads of `pool`.

    The number is the calling thread's own, and what threads started later begin with; both are put
    back.
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
