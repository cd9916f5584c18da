"""Tasks whose workers die are repeated carefully, then alone, then fail; no row is lost."""

from __future__ import annotations

import os
import signal
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from pathlib import Path

import joblib
import numpy as np
import pytest

from featuretl.exceptions import FeatureTLError, InputError, ParameterError, StoreError
from featuretl.images.sources import find_images
from featuretl.scaleout import engines as engines_module
from featuretl.scaleout.engines import (
    Engine,
    WorkerLostError,
    _DaskEngine,
    _LokyEngine,
    active_engine,
    results,
)
from featuretl.scaleout.extraction import extract_shards

dask = pytest.importorskip("dask", reason="an extra: dask")
Client = pytest.importorskip("distributed", reason="an extra: dask").Client


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


OPTIONS = {"runtime": "torch", "batch_size": 10, "images_per_shard": 20}


def connected(cluster) -> Client:
    return Client(scheduler_file=cluster.address, set_as_default=False, timeout=30)


@pytest.mark.slow_reliability
def test_after_a_worker_and_the_scheduler_are_killed_all_rows_are_there_once(
    column, rows_of, doomed, cluster, many_photos: Path, expected: np.ndarray, tiny, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    killed = {}

    def kill(statistics) -> None:
        if statistics.embedded >= 100 and "worker" not in killed:
            killed["worker"] = next(iter(client.run(os.getpid).values()))
            os.kill(killed["worker"], signal.SIGKILL)
        if statistics.embedded >= 240 and "scheduler" not in killed:
            killed["scheduler"] = statistics.embedded
            doomed.scheduler.kill()

    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
        client = connected(doomed)
        with joblib.parallel_config(backend="dask", client=client):
            with pytest.raises(FeatureTLError, match="scheduler was lost"):
                extract_shards(many_photos, tiny, store=store, progress=kill, **OPTIONS)
        client.close(timeout=1)
    doomed.end()
    assert killed.keys() == {"worker", "scheduler"}
    finished = {path.name for path in store.glob("spaces/*/shards/*")}
    assert 12 <= len(finished) < 20
    # Once each, except for at most two shards that the killed worker was embedding.
    assert len(doomed.keys()) <= len(set(doomed.keys())) + 40

    before = len(cluster.keys())
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        found = extract_shards(many_photos, tiny, store=store, **OPTIONS)
    assert found.statistics.cached == 20 * len(finished)
    assert found.statistics.embedded == 400 - 20 * len(finished) == len(cluster.keys()) - before
    images = find_images([many_photos])
    assert column(found, "path") == images.paths
    assert column(found, "label") == images.labels
    np.testing.assert_array_equal(rows_of(found), expected)


@pytest.mark.slow_reliability
def test_an_image_that_kills_workers_is_named_and_the_others_are_kept(
    column, cluster, photos: list[str], tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(photos[:12]):
        data = Path(path).read_bytes() + (b"poison" if number == 5 else b"")
        (folder / f"{number:02d}.jpg").write_bytes(data)
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        found = extract_shards(
            folder,
            tiny,
            store=tmp_path / "store",
            on_error="nan",
            **{**OPTIONS, "images_per_shard": 4},
        )
    # A shard can be finished when its worker dies of another shard; it is not embedded again.
    assert found.statistics.embedded + found.statistics.cached == 11
    (failure,) = found.failures
    assert failure.name == str(folder / "05.jpg")
    assert failure.message == "decoding it ended the decoder's process (exit status 9)"
    good = [number for number in range(12) if number != 5]
    assert column(found, "path") == [str(folder / f"{number:02d}.jpg") for number in good]


def test_what_workers_raise_is_one_sentence(cluster, photos, tiny, tmp_path: Path) -> None:
    bad = tmp_path / "broken.tar"
    bad.write_bytes(b"no tar at all" * 100)
    with connected(cluster) as client, joblib.parallel_config(backend="dask", client=client):
        with pytest.raises(InputError) as raised:
            extract_shards([*photos[:2], bad], tiny, store=tmp_path / "store", **OPTIONS)
        assert str(bad) in str(raised.value)
        assert str(raised.value).isprintable()
        file = tmp_path / "a file"
        file.touch()
        with pytest.raises(StoreError, match="cannot be read"):
            extract_shards(photos[:2], tiny, store=file / "store", **OPTIONS)


@pytest.mark.parametrize(
    "is_killed", [False, pytest.param(True, marks=pytest.mark.slow_reliability)]
)
def test_loky_gives_the_same_and_survives_a_kill(
    column, rows_of, is_killed, photos, embedded, tiny, tmp_path, monkeypatch
):
    started, killed = [], []
    start = engines_module._LokyEngine.start

    def noted(self):
        started.append(start(self))
        return started[-1]

    def kill(statistics):
        if is_killed and not killed:
            killed.extend(list(started[-1]._processes)[:1])
            os.kill(killed[0], 9)

    monkeypatch.setattr(engines_module._LokyEngine, "start", noted)
    options = {**OPTIONS, "store": tmp_path, "images_per_shard": 8}
    with joblib.parallel_config(n_jobs=2):
        found = extract_shards(photos, tiny, progress=kill, **options)
        # The processes are not joblib's own.
        assert joblib.Parallel()(joblib.delayed(abs)(i) for i in (-1, -2)) == [1, 2]
    assert len({id(executor) for executor in started}) == 1 + is_killed
    assert len(killed) == is_killed
    assert not found.failures
    np.testing.assert_allclose(rows_of(found), embedded, rtol=1e-5, atol=1e-6)
    assert column(found, "path") == photos


def test_other_backends_of_joblib_are_refused(photos, tiny, tmp_path):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(ParameterError, match="got ThreadingBackend"):
            extract_shards(photos[:1], tiny, store=tmp_path)


def test_workers_decide_before_joblib_does():
    assert type(active_engine(None)) is type(active_engine(1)) is Engine
    assert isinstance(active_engine(2), _LokyEngine)
    with joblib.parallel_config(n_jobs=2):
        assert isinstance(active_engine(None), _LokyEngine)
        assert active_engine(None).n_workers() == 2
        assert type(active_engine(1)) is Engine
        assert active_engine(3).n_workers() == 3
