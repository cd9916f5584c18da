"""Dask workers for as long as they are needed: on this machine, or behind a scheduler's address."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import joblib

from featuretl._core.parameters import check_int, parameter_error
from featuretl.exceptions import FeatureTLError

_CONNECT_SECONDS = 10


@contextlib.contextmanager
def dask_workers(
    scheduler: str | None = None, workers: int | None = None, gpu_per_worker: int = 0
) -> Iterator[Any]:
    """Let `extract_shards` use Dask while the context lasts; yield the client.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, such as "tcp://10.0.0.1:8786"; its workers are used. None
        starts a cluster on this machine, and ends it with the context.
    workers : int, optional
        Processes to start on this machine, of one thread each; by default one per usable core, or
        as many as there are GPUs for. Not with a scheduler.
    gpu_per_worker : int, default=0
        GPUs that each worker has to itself. Workers started here see those only; those of a running
        scheduler must have been started with ``--resources "GPU=N"`` and see theirs.

    Raises
    ------
    ParameterError
        If there are not enough GPUs, or `workers` and `scheduler` are both given.
    FeatureTLError
        If Dask is not installed, or the scheduler does not answer.
    """
    check_int("dask_workers", "gpu_per_worker", gpu_per_worker, 0)
    try:
        from distributed import Client
    except ImportError as error:
        raise FeatureTLError("Dask needs: pip install 'featuretl[dask]'") from error
    resources = {"resources": {"GPU": gpu_per_worker}} if gpu_per_worker else {}
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            address = stack.enter_context(_local_cluster(workers, gpu_per_worker))
        elif workers is not None:
            raise parameter_error("dask_workers", "workers", "None with a scheduler", workers)
        else:
            address = scheduler
        try:
            client = stack.enter_context(
                Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            raise FeatureTLError(
                f"The Dask scheduler {scheduler!r} does not answer ({error}); start one with: dask "
                "scheduler"
            ) from error
        with joblib.parallel_config(backend="dask", client=client, **resources):
            yield client


def _local_cluster(workers: int | None, gpu_per_worker: int) -> Any:
    """Return a cluster of nannies, which start workers that were killed again."""
    from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

    if workers is not None:
        check_int("dask_workers", "workers", workers, 1)
    quiet = {"silence_logs": logging.CRITICAL}  # what fails is told by extract_shards
    if not gpu_per_worker:
        n = workers or joblib.cpu_count()
        return LocalCluster(
            n_workers=n, threads_per_worker=1, dashboard_address="127.0.0.1:0", **quiet
        )
    from featuretl.backbones.devices import count_gpus

    n_gpus = count_gpus()
    n = workers or n_gpus // gpu_per_worker
    if not 0 < n * gpu_per_worker <= n_gpus:
        raise parameter_error(
            "dask_workers", "gpu_per_worker", f"at most the {n_gpus} GPUs here", gpu_per_worker
        )
    nannies = {
        number: {"cls": Nanny, "options": _on_gpus(number, gpu_per_worker)} for number in range(n)
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(nannies, {"cls": Scheduler, "options": options}, **quiet)


def _on_gpus(number: int, gpus: int) -> dict[str, Any]:
    """Return the options of worker `number`, which sees `gpus` GPUs of its own."""
    seen = ",".join(map(str, range(number * gpus, (number + 1) * gpus)))
    return {"nthreads": 1, "resources": {"GPU": gpus}, "env": {"CUDA_VISIBLE_DEVICES": seen}}
