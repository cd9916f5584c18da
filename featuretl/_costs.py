"""Costs: processor time by stage, summed over threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Costs:
    """Seconds of processor time that each stage of some work has taken, in all threads.

    Attributes
    ----------
    seconds : dict of str to float
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what this thread does meanwhile to the stage `name`."""
        began = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - began
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

    @contextlib.contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Count what the whole process does meanwhile, but for other stages, to the stage `name`."""
        began, counted = time.process_time(), sum(self.seconds.values())
        try:
            yield
        finally:
            spent = time.process_time() - began - (sum(self.seconds.values()) - counted)
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + max(0.0, spent)
