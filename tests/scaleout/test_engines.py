"""Tasks whose workers die are repeated carefully, then alone, and then fail."""

from __future__ import annotations

import sys
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future

import pytest

from featuretl.exceptions import FeatureTLError, ParameterError
from featuretl.scaleout import cluster
from featuretl.scaleout.engines import Engine, WorkerLostError, _DaskEngine, results


class Fragile(Executor):
    """Runs submitted tasks on demand; a fatal task breaks all of them, as in loky."""

    def __init__(self, engine: FragileEngine) -> None:
        self.engine, self.broken = engine, False
        self.waiting: list[tuple[Future, object, bool]] = []

    def submit(self, function, task, careful):
        if self.broken:
            raise BrokenExecutor
        future = Future()
        self.waiting.append((future, task, careful))
        self.engine.most = max(self.engine.most, len(self.waiting))
        if len(self.waiting) >= 2 or self.engine.last_of(task):
            self.work(function)
        return future

    def work(self, function):
        together = [task for _, task, _ in self.waiting]
        for _, task, careful in self.waiting:
            self.engine.tried.append((task, careful, len(together)))
        self.broken = any(self.engine.kills(task, careful) for _, task, careful in self.waiting)
        for future, task, careful in self.waiting:
            if self.broken:
                future.set_exception(BrokenExecutor())
            else:
                future.set_result(function(task, careful))
        self.waiting = []


class FragileEngine(Engine):
    def __init__(self, fatal=(), fatal_even_carefully=()):
        self.fatal, self.always = fatal, fatal_even_carefully
        self.tried, self.most = [], 0

    def start(self):
        return Fragile(self)

    def last_of(self, task):
        return sum(one == task for one, _, _ in self.tried) >= 2 or task == "e"

    def kills(self, task, careful):
        return task in self.always or (task in self.fatal and not careful)

    def error_of(self, error):
        return WorkerLostError() if isinstance(error, BrokenExecutor) else error


def run(engine, tasks="abcde"):
    return dict(results(engine, lambda task, careful: (task, careful), tasks))


def test_without_losses_every_task_is_done_once():
    engine = FragileEngine()
    assert run(engine) == {task: (task, False) for task in "abcde"}
    assert len(engine.tried) == 5
    assert engine.most <= 2


def test_a_fatal_task_is_done_carefully_and_costs_others_at_most_a_try():
    engine = FragileEngine(fatal="b")
    found = run(engine)
    assert found["b"] == ("b", True)
    assert {task for task, _ in found.values()} == set("abcde")
    assert len(engine.tried) <= 5 + 2


def test_what_nothing_survives_is_tried_alone_and_given_up():
    engine = FragileEngine(fatal_even_carefully="b")
    found = run(engine)
    assert isinstance(found.pop("b"), WorkerLostError)
    assert {task for task, _ in found.values()} == set("acde")
    tries = [(careful, together) for task, careful, together in engine.tried if task == "b"]
    assert len(tries) == 4
    assert [careful for careful, _ in tries] == [False, True, True, True]
    assert [together for _, together in tries][2:] == [1, 1]


def test_what_a_task_raises_ends_the_run_and_stops_the_engine():
    stopped = []

    class Stopped(Engine):
        def stop(self, executor):
            stopped.append(executor)

    def fail(task, careful):
        raise FeatureTLError("no backbone")

    with pytest.raises(FeatureTLError, match="no backbone"):
        list(results(Stopped(), fail, "ab"))
    assert len(stopped) == 1
    one = results(Stopped(), lambda task, careful: task, "abcdef")
    next(one)
    one.close()
    assert len(stopped) == 2


def test_what_dask_raises_is_said_in_a_sentence():
    engine = _DaskEngine.__new__(_DaskEngine)
    assert "scheduler was lost" in str(engine.error_of(CancelledError()))
    missing = engine.error_of(ModuleNotFoundError("No module named 'featuretl'"))
    assert str(missing).endswith("install the same packages on all workers as here.")
    assert isinstance(missing, FeatureTLError)
    error = FeatureTLError("as it is")
    assert engine.error_of(error) is error


def test_a_scheduler_that_does_not_answer_and_dask_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    with pytest.raises(FeatureTLError, match=r"'tcp://127\.0\.0\.1:9' does not answer"):
        with cluster.dask_workers("tcp://127.0.0.1:9"):
            pass
    with pytest.raises(ParameterError, match="None with a scheduler; got 2"):
        with cluster.dask_workers("tcp://127.0.0.1:9", workers=2):
            pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(FeatureTLError, match=r"pip install 'featuretl\[dask\]'"):
        with cluster.dask_workers():
            pass
