"""How many images one forward pass takes: as given, or found while it works."""

from __future__ import annotations

import math
import statistics

FIRST = 16

_TRIALS = 5
_LEAST_GAIN = 0.03


class BatchSize:
    """A batch size; "auto" doubles while that makes images faster, then steps back once and stays.

    Where memory does not suffice, the runtime halves its own batches; that is slower here, so that
    the size stops growing. "auto" does not pass `most`.
    """

    def __init__(self, wanted: int | str) -> None:
        self._grows = isinstance(wanted, str)
        self.now = FIRST if isinstance(wanted, str) else int(wanted)
        self.most = FIRST
        self._fastest = math.inf
        self._seconds: list[float] = []

    def learn(self, n: int, seconds: float) -> None:
        """Take into account that a batch of `n` images took `seconds`; of another size, nothing."""
        if not self._grows or n != self.now:
            return
        self._seconds.append(seconds / n)
        if len(self._seconds) < _TRIALS:
            return
        found = statistics.median(self._seconds)
        self._seconds = []
        if found > (1 - _LEAST_GAIN) * self._fastest:
            self.now //= 2
            self._grows = False
        else:
            self._fastest = found
            self._grows = 2 * self.now <= self.most
            self.now *= 1 + self._grows
