"""The batch size: fixed, or tuned while images are embedded."""

from __future__ import annotations

import math
import statistics

FIRST = 16

_TRIALS = 5
_LEAST_GAIN = 0.03


class BatchSize:
    """A batch size; "auto" doubles up to a limit while that is faster, then steps back once.

    A runtime that runs out of memory halves its batches, which is slower: growth stops there.
    """

    def __init__(self, wanted: int | str) -> None:
        self._grows = isinstance(wanted, str)
        self.current = FIRST if isinstance(wanted, str) else int(wanted)
        self._largest = FIRST
        self._fastest = math.inf
        self._seconds: list[float] = []

    def limit(self, largest: int, *, grows: bool) -> None:
        """Set the limit of "auto", or, unless it `grows`, its size."""
        self._largest = largest
        if self._grows and not grows:
            self.current, self._grows = largest, False

    def record(self, n: int, seconds: float) -> None:
        """Record that `n` images took `seconds`; sizes other than `current` are ignored."""
        if not self._grows or n != self.current:
            return
        self._seconds.append(seconds / n)
        if len(self._seconds) < _TRIALS:
            return
        found = statistics.median(self._seconds)
        self._seconds = []
        if found > (1 - _LEAST_GAIN) * self._fastest:
            self.current //= 2
            self._grows = False
        else:
            self._fastest = found
            self._grows = 2 * self.current <= self._largest
            self.current *= 1 + self._grows
