"""Processor time by stage, summed over threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Costs:
    """Seconds of processor time by stage, over all threads and child processes, in `seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._of_children = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add this thread's processor time in this context to the stage `name`."""
        began = time.thread_time()
        try:
            yield
        finally:
            self.add({name: time.thread_time() - began})

    def add(self, seconds: dict[str, float]) -> None:
        """Add seconds by stage."""
        with self._lock:
            for name, value in seconds.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + value

    def add_of_child(self, seconds: dict[str, float]) -> None:
        """Add seconds of a child process by stage."""
        self.add(seconds)
        with self._lock:
            self._of_children += sum(seconds.values())

    @contextlib.contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Add the process's time in this context, minus that of other stages, to `name`."""
        began, counted = time.process_time(), self._here()
        try:
            yield
        finally:
            rest = time.process_time() - began - (self._here() - counted)
            self.add({name: max(0.0, rest)})

    def _here(self) -> float:
        """Return the seconds of this process."""
        return sum(self.seconds.values()) - self._of_children
