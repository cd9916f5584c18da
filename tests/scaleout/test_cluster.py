"""Dask workers for a context, or one sentence on why there are none."""

from __future__ import annotations

import os
import sys

import pytest
from joblib.parallel import get_active_backend

from featuretl.exceptions import FeatureTLError, ParameterError
from featuretl.scaleout import cluster


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


def backend():
    return type(get_active_backend()[0]).__name__


def test_workers_work_within_the_context_only():
    outside = backend()
    with cluster.dask_workers(workers=1) as client:
        assert backend() == "DaskDistributedBackend"
        assert list(client.nthreads().values()) == [1]
        (pid,) = client.run(os.getpid).values()
        assert pid != os.getpid()
    assert backend() == outside
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def four_gpus(monkeypatch):
    """Pretend to have four GPUs; return the arguments of the clusters that are started."""
    started = []
    monkeypatch.setattr("featuretl.backbones.devices.count_gpus", lambda: 4)
    monkeypatch.setattr("distributed.SpecCluster", lambda workers, *args, **_: started.append(workers))  # fmt: skip
    return started


@pytest.mark.parametrize(
    "workers, gpus, visible",
    [(None, 1, ["0", "1", "2", "3"]), (None, 3, ["0,1,2"]), (2, 2, ["0,1", "2,3"])],
)
def test_every_worker_sees_its_own_gpus(workers, gpus, visible, four_gpus):
    cluster._local_cluster(workers, gpus)
    options = [worker["options"] for worker in four_gpus[0].values()]
    assert [option["env"]["CUDA_VISIBLE_DEVICES"] for option in options] == visible
    assert {option["resources"]["GPU"] for option in options} == {gpus}


@pytest.mark.parametrize("workers, gpus", [(None, 5), (3, 2)])
def test_more_gpus_than_there_are_is_an_error(workers, gpus, four_gpus):
    with pytest.raises(ParameterError, match="at most the 4 GPUs"):
        cluster._local_cluster(workers, gpus)
    assert not four_gpus


@pytest.mark.parametrize("options", [{"workers": 0}, {"gpu_per_worker": -1}])
def test_numbers_are_checked(options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        with cluster.dask_workers(**options):
            pass
