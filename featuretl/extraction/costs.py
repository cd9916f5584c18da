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

    def stage(self, name: str) -> _Stage:
        """Count what this thread does in the returned context to the stage `name`."""
        return _Stage(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds to the stage `name`."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Count what the whole process does meanwhile, but for other stages, to the stage `name`."""
        began, counted = time.process_time(), sum(self.seconds.values())
        try:
            yield
        finally:
            spent = time.process_time() - began - (sum(self.seconds.values()) - counted)
            self.add(name, max(0.0, spent))


class _Stage:
    """A context; a class, because it is entered several times for every image."""

    __slots__ = ("_began", "_costs", "_name")

    def __init__(self, costs: Costs, name: str) -> None:
        self._costs, self._name = costs, name

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *error: object) -> None:
        self._costs.add(self._name, time.thread_time() - self._began)
