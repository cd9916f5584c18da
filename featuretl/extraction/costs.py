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

    def stage(self, name: str) -> _Stage:
        """Return a context that adds this thread's processor time to the stage `name`."""
        return _Stage(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to the stage `name`."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def add_of_child(self, seconds: dict[str, float]) -> None:
        """Add seconds of a child process by stage."""
        for name, value in seconds.items():
            self.add(name, value)
        with self._lock:
            self._of_children += sum(seconds.values())

    @contextlib.contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Add the process's time in this context, minus that of other stages, to `name`."""
        began, counted = time.process_time(), self._here()
        try:
            yield
        finally:
            self.add(name, max(0.0, time.process_time() - began - (self._here() - counted)))

    def _here(self) -> float:
        """Return the seconds of this process."""
        return sum(self.seconds.values()) - self._of_children


class _Stage:
    """The context of `Costs.stage`; a class is fast, and every image enters several stages."""

    __slots__ = ("_began", "_costs", "_name")

    def __init__(self, costs: Costs, name: str) -> None:
        self._costs, self._name = costs, name

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *error: object) -> None:
        self._costs.add(self._name, time.thread_time() - self._began)
