"""Which processes do the work: this one, loky's, or Dask's, as `joblib.parallel_config` says.

joblib says who works and how many; the tasks go through the `concurrent.futures` executors that
loky and Dask offer themselves, so that each task has a result or an error of its own.
`joblib.Parallel` gives up the whole call when a loky worker is killed, and with Dask waits for ever
for a task that killed its workers (joblib 1.6: the error reaches no callback).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import joblib
from joblib.parallel import get_active_backend

from featuretl.exceptions import FeatureTLError, ParameterError
from featuretl.extraction.extraction import check_jobs

Task = TypeVar("Task")

# How a task is tried: with others; then carefully; then, as others may have died of it, alone.
_CAREFUL, _ALONE, _GIVEN_UP = 1, 2, 4
_WAIT_FOR_WORKERS = 60  # seconds
_AHEAD = 2


class WorkerLostError(Exception):
    """A task's worker process ended before the task did."""


class Engine:
    """Processes that tasks are given to; this class is the one that uses none but this one.

    Attributes
    ----------
    name : str
    """

    name = "sequential"

    def start(self) -> Executor:
        """Return the executor that tasks are submitted to; a new one if its processes were lost."""
        return _InProcessExecutor()

    def n_workers(self) -> int:
        """Return how many tasks can run simultaneously now."""
        return 1

    def stop(self, executor: Executor) -> None:
        """End what is under way: the run was interrupted."""

    def close(self) -> None:
        """End the processes that were started for this engine alone."""

    def error_of(self, error: BaseException) -> BaseException:
        """Return `error`, or `WorkerLostError` where it says that."""
        return error


class _LokyEngine(Engine):
    """Processes of its own: loky's reusable ones are joblib's, which expects to have made them."""

    name = "loky"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: Any = None

    def start(self) -> Executor:
        from joblib.externals.loky import ProcessPoolExecutor

        if self._executor is not None:
            try:
                self._executor.submit(int)
            except RuntimeError:  # broken, or ended
                self.close()
        if self._executor is None:
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._executor = ProcessPoolExecutor(self._workers, env=one_thread)
        found: Executor = self._executor
        return found

    def n_workers(self) -> int:
        return self._workers

    def stop(self, executor: Executor) -> None:
        self.close()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def error_of(self, error: BaseException) -> BaseException:
        from concurrent.futures import BrokenExecutor

        return WorkerLostError() if isinstance(error, BrokenExecutor) else error


class _DaskEngine(Engine):
    name = "dask"

    def __init__(self, client: Any, **submit: Any) -> None:
        self._client, self._submit = client, submit
        try:
            client.wait_for_workers(1, _WAIT_FOR_WORKERS)
        except (TimeoutError, OSError) as error:
            raise FeatureTLError(
                f"The Dask scheduler {client.scheduler.address} has no worker after "
                f"{_WAIT_FOR_WORKERS} s; start some with: dask worker {client.scheduler.address}"
            ) from error

    def start(self) -> Executor:
        try:
            return self._client.get_executor(pure=False, **self._submit)
        except TypeError as error:
            raise ParameterError(f"parallel_config(backend='dask', ..): {error}.") from error

    def n_workers(self) -> int:
        try:
            return max(1, len(self._client.nthreads()))  # workers come and go
        except (OSError, TimeoutError) as error:
            raise _scheduler_lost() from error

    def stop(self, executor: Executor) -> None:
        with contextlib.suppress(Exception):  # it may be the scheduler that is gone
            executor.shutdown(wait=False)

    def error_of(self, error: BaseException) -> BaseException:
        from distributed import KilledWorker

        if isinstance(error, CancelledError):
            return _scheduler_lost()
        if isinstance(error, ImportError):
            return FeatureTLError(
                f"A Dask worker cannot import what it needs ({error}); install the same packages on "
                "all workers as here."
            )
        return WorkerLostError() if isinstance(error, KilledWorker) else error


def active_engine(workers: int | None) -> Engine:
    """Return the engine that `joblib.parallel_config`, and the parameter `workers`, mean.

    Raises
    ------
    ParameterError
        If joblib's backend is another than loky or Dask.
    """
    check_jobs("extract_shards", "workers", workers)
    backend, n_jobs = get_active_backend()
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend":
        return _DaskEngine(backend.client, **backend.submit_kwargs)
    n = joblib.effective_n_jobs(n_jobs if workers is None else workers)
    if n == 1:
        return Engine()
    if kind != "LokyBackend":
        raise ParameterError(
            "extract_shards works with joblib's backends 'loky' and 'dask'; got "
            f"{kind}: choose one by joblib.parallel_config(backend=..)."
        )
    return _LokyEngine(n)


@dataclass(eq=False)
class _Try(Generic[Task]):
    task: Task
    times: int = 0


def results(
    engine: Engine, function: Callable[..., Any], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Any]]:
    """Yield (task, ``function(task, careful)``) as they are done, a few per worker under way.

    A task that a worker did not survive is tried again, with ``careful=True``, when all others
    are done: first together with others, then twice alone; if no worker survives that either, its
    result is a `WorkerLostError`.
    """
    schedule = _Schedule(tasks)
    under_way: dict[Future[Any], _Try[Task]] = {}
    executor = engine.start()
    try:
        while True:
            while len(under_way) < _AHEAD * engine.n_workers():
                if (one := schedule.following(under_way.values())) is None:
                    break
                careful = one.times >= _CAREFUL
                try:
                    future = executor.submit(function, one.task, careful)
                except Exception as error:
                    if not isinstance(engine.error_of(error), WorkerLostError):
                        raise
                    executor = engine.start()  # broken since the last look: this task is innocent
                    future = executor.submit(function, one.task, careful)
                under_way[future] = one
            if not under_way:
                return
            lost = False
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                one = under_way.pop(future)
                outcome = _outcome(engine, future)
                lost = lost or isinstance(outcome, WorkerLostError)
                if not isinstance(outcome, WorkerLostError) or not schedule.retry(one):
                    yield one.task, outcome
            if lost:
                executor = engine.start()
    except BaseException:
        engine.stop(executor)
        raise


class _Schedule(Generic[Task]):
    """Which task comes next: new ones first, then those whose workers were lost, at last alone."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._fresh = iter(tasks)
        self._again: list[deque[_Try[Task]]] = [deque() for _ in range(_GIVEN_UP)]

    def following(self, under_way: Collection[_Try[Task]]) -> _Try[Task] | None:
        """Return the task to submit now; None if there is none, or it has to wait."""
        if any(one.times >= _ALONE for one in under_way):
            return None
        for task in self._fresh:
            return _Try(task)
        for times, waiting in enumerate(self._again):
            if waiting:
                return waiting.popleft() if times < _ALONE or not under_way else None
        return None

    def retry(self, lost: _Try[Task]) -> bool:
        """Return whether a task whose worker was lost is tried again, later."""
        lost.times += 1
        if lost.times < _GIVEN_UP:
            self._again[lost.times].append(lost)
        return lost.times < _GIVEN_UP


def _outcome(engine: Engine, future: Future[Any]) -> Any:
    """Return a result, or a `WorkerLostError`; raise what else there is."""
    try:
        return future.result()
    except (Exception, CancelledError) as error:
        known = engine.error_of(error)
        if isinstance(known, WorkerLostError):
            return known
        raise known from (None if known is error else error)


def _scheduler_lost() -> FeatureTLError:
    return FeatureTLError(
        "The Dask scheduler was lost; the shards that were finished are kept: start it again and "
        "run the same command to go on."
    )


class _InProcessExecutor(Executor):
    """Runs each task in this process when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
