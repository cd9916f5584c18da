"""Execution engines: this process, loky or Dask, selected by `joblib.parallel_config`.

Unlike `joblib.Parallel` (1.6), they survive a killed worker: each task is a future of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import joblib
from joblib.parallel import get_active_backend

from featuretl.exceptions import FeatureTLError, ParameterError
from featuretl.extraction.extraction import check_jobs

Task = TypeVar("Task")

# After this many lost workers a task runs carefully, then alone, and then it fails.
_CAREFUL, _ALONE, _FAILED = 1, 2, 4
_WORKER_SECONDS = 60
_TASKS_PER_WORKER = 2


class WorkerLostError(Exception):
    """A task's worker process ended before the task did."""


class Engine:
    """Runs tasks in this process; subclasses run them in worker processes."""

    def start(self) -> Executor:
        """Return the executor for tasks; a new one if its processes were lost."""
        return _InProcessExecutor()

    def n_workers(self) -> int:
        """Return the number of tasks that can run simultaneously now."""
        return 1

    def stop(self, executor: Executor) -> None:
        """Cancel running tasks after an interrupt."""

    def close(self) -> None:
        """End the processes that this engine started."""

    def error_of(self, error: BaseException) -> BaseException:
        """Return the error to raise for `error`; `WorkerLostError` if it reports a lost worker."""
        return error


class _LokyEngine(Engine):
    """Runs tasks in its own loky processes, because joblib owns loky's reusable executor."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: Any = None

    def start(self) -> Executor:
        from joblib.externals.loky import ProcessPoolExecutor

        if self._executor is not None:
            try:
                self._executor.submit(int)
            except RuntimeError:  # the executor is broken or was shut down
                self.close()
        if self._executor is None:
            one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._executor = ProcessPoolExecutor(self._workers, env=one_thread)
        return self._executor

    def n_workers(self) -> int:
        return self._workers

    def stop(self, executor: Executor) -> None:
        self.close()

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def error_of(self, error: BaseException) -> BaseException:
        return WorkerLostError() if isinstance(error, BrokenExecutor) else error


class _DaskEngine(Engine):
    def __init__(self, client: Any, **submit: Any) -> None:
        self._client, self._submit = client, submit
        try:
            client.wait_for_workers(1, _WORKER_SECONDS)
        except (TimeoutError, OSError) as error:
            raise FeatureTLError(
                f"The Dask scheduler {client.scheduler.address} has no worker after "
                f"{_WORKER_SECONDS} s; start workers with: dask worker {client.scheduler.address}"
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
        with contextlib.suppress(Exception):  # the scheduler can be lost
            executor.shutdown(wait=False)

    def error_of(self, error: BaseException) -> BaseException:
        from distributed import KilledWorker

        if isinstance(error, CancelledError):
            return _scheduler_lost()
        if isinstance(error, ImportError):
            return FeatureTLError(
                f"A Dask worker cannot import a package ({error}); install the same packages on "
                "all workers as here."
            )
        return WorkerLostError() if isinstance(error, KilledWorker) else error


def active_engine(workers: int | None) -> Engine:
    """Return the engine that `joblib.parallel_config` and the parameter `workers` select."""
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
            f"{kind}: choose one with joblib.parallel_config(backend=..)."
        )
    return _LokyEngine(n)


@dataclass(eq=False)
class _Attempt(Generic[Task]):
    task: Task
    lost_workers: int = 0


def results(
    engine: Engine, function: Callable[..., Any], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Any]]:
    """Yield (task, ``function(task, careful)``) in order of completion.

    A task whose worker is killed is repeated with ``careful=True`` after all others, at last twice
    alone; if no worker survives, its result is a `WorkerLostError`.
    """
    schedule = _Schedule(tasks)
    running: dict[Future[Any], _Attempt[Task]] = {}
    executor = engine.start()
    try:
        while True:
            while len(running) < _TASKS_PER_WORKER * engine.n_workers():
                if (attempt := schedule.next_attempt(running.values())) is None:
                    break
                careful = attempt.lost_workers >= _CAREFUL
                try:
                    future = executor.submit(function, attempt.task, careful)
                except Exception as error:
                    if not isinstance(engine.error_of(error), WorkerLostError):
                        raise
                    executor = engine.start()  # another task has broken the executor meanwhile
                    future = executor.submit(function, attempt.task, careful)
                running[future] = attempt
            if not running:
                return
            lost = False
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                attempt = running.pop(future)
                outcome = _outcome(engine, future)
                lost = lost or isinstance(outcome, WorkerLostError)
                if not isinstance(outcome, WorkerLostError) or not schedule.retry(attempt):
                    yield attempt.task, outcome
            if lost:
                executor = engine.start()
    except BaseException:
        engine.stop(executor)
        raise


class _Schedule(Generic[Task]):
    """The order of tasks: new ones first, then those whose workers were lost, at last alone."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._new = iter(tasks)
        self._lost: list[_Attempt[Task]] = []

    def next_attempt(self, running: Collection[_Attempt[Task]]) -> _Attempt[Task] | None:
        """Return the task to submit now; None if none is left, or the next one must wait."""
        if any(attempt.lost_workers >= _ALONE for attempt in running):
            return None
        for task in self._new:
            return _Attempt(task)
        attempt = min(self._lost, key=lambda attempt: attempt.lost_workers, default=None)
        if attempt is None or (running and attempt.lost_workers >= _ALONE):
            return None
        self._lost.remove(attempt)
        return attempt

    def retry(self, attempt: _Attempt[Task]) -> bool:
        """Schedule a task whose worker was lost again; return False if it has failed too often."""
        attempt.lost_workers += 1
        if attempt.lost_workers < _FAILED:
            self._lost.append(attempt)
        return attempt.lost_workers < _FAILED


def _outcome(engine: Engine, future: Future[Any]) -> Any:
    """Return a result or a `WorkerLostError`; raise other errors."""
    try:
        return future.result()
    except (Exception, CancelledError) as error:
        known = engine.error_of(error)
        if isinstance(known, WorkerLostError):
            return known
        raise known from (None if known is error else error)


def _scheduler_lost() -> FeatureTLError:
    return FeatureTLError(
        "The Dask scheduler was lost; the finished shards are saved: start the scheduler again and "
        "run the same command to resume."
    )


class _InProcessExecutor(Executor):
    """Runs each task in this process when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
