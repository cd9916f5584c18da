"""Dask workers for a context, or one sentence on why there are none."""

from __future__ import annotations

import sys

import pytest

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
