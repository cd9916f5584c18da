"""Writers that are killed at any moment lose nothing that they acknowledged."""

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
        """Kill it; return the images that it had acknowledged."""
        self._process.kill()
        *lines, _torn = self._process.communicate()[0].split("\n")
        assert self._process.returncode == -signal.SIGKILL  # neither failed nor ready
        return {int(number) for line in lines for number in line.split()}


def kill_after(writers: list[Writer], seconds: float) -> set[int]:
    """Let the writers begin, then kill them `seconds` later."""
    for writer in writers:
        writer.await_start()
    time.sleep(seconds)  # the moment is the test: no event marks it
    return set().union(*(writer.kill() for writer in writers))


def test_twenty_kills_lose_no_acknowledged_row(cache):
    random, acknowledged = Random(0), set()
    for seed in range(20):
        acknowledged |= kill_after([Writer(cache, seed)], random.uniform(0.0, 0.25))
        # As a process that was not there before, and without a word of damage.
        assert acknowledged <= present(EmbeddingStore(cache), range(N))
    assert 0 < len(acknowledged) < N
    there = present(EmbeddingStore(cache), range(N))
    assert set(put(EmbeddingStore(cache), range(N))) == set(range(N)) - there
    assert present(EmbeddingStore(cache), range(N)) == set(range(N))


@pytest.mark.slow_reliability
def test_four_writers_two_hundred_kills_and_damage_in_between(cache):
    """50 rounds of four writers; after every other round some file is torn, or a bit flips."""
    random, acknowledged = Random(1), set()
    warnings.simplefilter("ignore", FeatureTLWarning)
    for round_ in range(50):
        writers = [Writer(cache, 4 * round_ + i) for i in range(4)]
        acknowledged |= kill_after(writers, random.uniform(0.0, 0.6))
        assert acknowledged <= present(EmbeddingStore(cache), range(N)), round_
        if round_ % 2:
            what = damage(random.choice(committed_files(cache)), random)
            # Rows of the damaged segment are gone, none is wrong, and they are made again.
            there = present(EmbeddingStore(cache), range(N))
            lost = acknowledged - there
            assert lost <= set(put(EmbeddingStore(cache), sorted(lost))) | there, what
            assert acknowledged <= present(EmbeddingStore(cache), range(N)), what
        if len(acknowledged) > N // 2:  # begin again, so that the writers never run out of work
            assert set(put(EmbeddingStore(cache), range(N))).isdisjoint(acknowledged)
            cache, acknowledged = cache.with_name(f"cache-{round_}"), set()
