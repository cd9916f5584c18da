"""Dask workers for the duration of a context, on this machine or from a running scheduler."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import joblib

from featuretl._core.lazy import import_extra
from featuretl._core.parameters import check_int, parameter_error
from featuretl.exceptions import FeatureTLError

_CONNECT_SECONDS = 10


@contextlib.contextmanager
def dask_workers(
    scheduler: str | None = None, workers: int | None = None, gpu_per_worker: int = 0
) -> Iterator[Any]:
    """Run `extract_shards` on Dask workers within the context; yield the client.

    Uses the workers of the `scheduler` with that address, such as "tcp://10.0.0.1:8786"; start them
    with ``--resources "GPU=N"`` if `gpu_per_worker` is N. Without a scheduler, starts
    single-threaded `workers` on this machine, by default one per usable core or as many as the GPUs
    allow, each of which sees only its own GPUs.
    """
    check_int("dask_workers", "gpu_per_worker", gpu_per_worker, 0)
    distributed = import_extra("distributed", "Dask is not installed", "dask")
    if scheduler is not None and workers is not None:
        raise parameter_error("dask_workers", "workers", "None with a scheduler", workers)
    resources = {"resources": {"GPU": gpu_per_worker}} if gpu_per_worker else {}
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if scheduler is None:
            address = stack.enter_context(_local_cluster(workers, gpu_per_worker))
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
            stack.enter_context(client)
        except (OSError, ValueError) as error:
            raise FeatureTLError(
                f"The Dask scheduler {scheduler!r} does not answer ({error}); start one with: dask "
                "scheduler"
            ) from error
        with joblib.parallel_config(backend="dask", client=client, **resources):
            yield client


def _local_cluster(workers: int | None, gpu_per_worker: int) -> Any:
    """Return a cluster whose nannies restart killed workers."""
    from distributed import LocalCluster, Nanny, Scheduler, SpecCluster

    check_int("dask_workers", "workers", workers, 1, None)
    dashboard = "127.0.0.1:0"
    quiet = {"silence_logs": logging.CRITICAL}  # extract_shards reports failures
    if not gpu_per_worker:
        local = {"n_workers": workers or joblib.cpu_count(), "threads_per_worker": 1}
        return LocalCluster(**local, dashboard_address=dashboard, **quiet)
    from featuretl.backbones.devices import count_gpus

    n_gpus = count_gpus()
    n = workers or n_gpus // gpu_per_worker
    if not 0 < n * gpu_per_worker <= n_gpus:
        raise parameter_error(
            "dask_workers", "gpu_per_worker", f"at most the {n_gpus} GPUs here", gpu_per_worker
        )
    nannies = {}
    for start in range(0, n * gpu_per_worker, gpu_per_worker):
        gpus = ",".join(map(str, range(start, start + gpu_per_worker)))
        env = {"CUDA_VISIBLE_DEVICES": gpus}
        options = {"nthreads": 1, "resources": {"GPU": gpu_per_worker}, "env": env}
        nannies[start // gpu_per_worker] = {"cls": Nanny, "options": options}
    options = {"host": "127.0.0.1", "port": 0, "dashboard_address": dashboard}
    return SpecCluster(nannies, {"cls": Scheduler, "options": options}, **quiet)
