"""Processor time is added up by stage, over threads, and the rest is what no stage has."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from featuretl.extraction.costs import Costs


def work(seconds: float) -> None:
    """Use this thread's processor for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_has_the_time_of_its_own_thread_and_does_not_count_waiting():
    costs, before = Costs(), time.thread_time()
    with costs.stage("wait"):
        time.sleep(0.05)
    with costs.stage("work"):
        work(0.05)
    assert costs.seconds["wait"] < 0.03
    assert 0.05 <= costs.seconds["work"] <= time.thread_time() - before


def test_repeated_stages_add_up_over_threads():
    costs = Costs()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: costs.add({"stage": 0.25}), range(1000)))
    assert costs.seconds == {"stage": 250.0}


def test_a_stage_is_counted_when_it_fails():
    costs = Costs()
    with pytest.raises(KeyError), costs.stage("work"):
        work(0.01)
        raise KeyError
    assert costs.seconds["work"] >= 0.01


def test_the_rest_is_the_time_of_the_process_without_the_stages_and_never_negative():
    costs = Costs()
    costs.add({"before": 100.0})
    before = time.process_time()
    with costs.rest("other"):
        with costs.stage("work"):
            work(0.1)
        work(0.05)
    total = time.process_time() - before
    assert 0.05 <= round(costs.seconds["other"], 3) <= total - costs.seconds["work"] + 1e-6
    with costs.rest("nothing"):
        costs.add({"claimed": 100.0})
    assert costs.seconds["nothing"] == 0.0
