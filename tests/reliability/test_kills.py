"""Killing a writer at any moment loses no row that it acknowledged."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from random import Random

import pytest
from damage import committed_files, damage
from known_rows import present, put

from featuretl import EmbeddingStore
from featuretl.exceptions import FeatureTLWarning

N = 6000
WRITER = Path(__file__).with_name("writer.py")


class Writer:
    """A child process that writes known rows."""

    def __init__(self, store: Path, seed: int, n: int = N) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WRITER), str(store), str(seed), str(n)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def await_start(self) -> None:
        assert self._process.stdout.readline() == "\n"

    def kill(self) -> set[int]:
        """Kill the process; return the images that it had acknowledged."""
        self._process.kill()
        *lines, _torn = self._process.communicate()[0].split("\n")
        assert self._process.returncode == -signal.SIGKILL  # it had neither failed nor finished
        return {int(number) for line in lines for number in line.split()}


def kill_after(writers: list[Writer], seconds: float) -> set[int]:
    """Wait until the writers have started, then kill them after `seconds`."""
    for writer in writers:
        writer.await_start()
    time.sleep(seconds)  # the random moment is the test
    return set().union(*(writer.kill() for writer in writers))


def test_twenty_kills_lose_no_acknowledged_row(cache):
    random, acknowledged = Random(0), set()
    for seed in range(20):
        acknowledged |= kill_after([Writer(cache, seed)], random.uniform(0.0, 0.25))
        # A new process sees the rows and reports no damage.
        assert acknowledged <= present(EmbeddingStore(cache), range(N))
    assert 0 < len(acknowledged) < N
    there = present(EmbeddingStore(cache), range(N))
    assert set(put(EmbeddingStore(cache), range(N))) == set(range(N)) - there
    assert present(EmbeddingStore(cache), range(N)) == set(range(N))


@pytest.mark.slow_reliability
def test_four_writers_two_hundred_kills_and_damage_in_between(cache):
    """Run 50 rounds of four writers; damage a random file after every other round."""
    random, acknowledged = Random(1), set()
    warnings.simplefilter("ignore", FeatureTLWarning)
    for round_ in range(50):
        writers = [Writer(cache, 4 * round_ + i) for i in range(4)]
        acknowledged |= kill_after(writers, random.uniform(0.0, 0.6))
        assert acknowledged <= present(EmbeddingStore(cache), range(N)), round_
        if round_ % 2:
            what = damage(random.choice(committed_files(cache)), random)
            # The damaged segment loses its rows, no row is wrong, and all can be embedded again.
            there = present(EmbeddingStore(cache), range(N))
            lost = acknowledged - there
            assert lost <= set(put(EmbeddingStore(cache), sorted(lost))) | there, what
            assert acknowledged <= present(EmbeddingStore(cache), range(N)), what
        if len(acknowledged) > N // 2:  # use a new store, so that the writers always have work
            assert set(put(EmbeddingStore(cache), range(N))).isdisjoint(acknowledged)
            cache, acknowledged = cache.with_name(f"cache-{round_}"), set()
