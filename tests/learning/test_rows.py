import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from featuretl._learning import rows as _rows
from featuretl._learning.rows import Rows, Workers, in_blocks, one_thread_pool
from featuretl.exceptions import InputError


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_standardised_and_summed(monkeypatch, streamed, threads):
    monkeypatch.setattr(_rows, "_BLOCK_ELEMENTS", 16 * 4)
    monkeypatch.setattr(_rows, "_COPY_BYTES", 0)
    X = np.random.default_rng(0).normal(3, 2, (100, 4)).astype(np.float16)
    X = X if streamed else X.astype(np.float64)
    weight = np.random.default_rng(1).uniform(size=100)
    with threadpool_limits(threads, user_api="blas"), one_thread_pool() as workers:
        rows = Rows(X, weight, workers, "features")
        assert (rows._copy is None) == streamed
        total, square = rows.sweep(lambda at, Z: [weight[at] @ Z, weight[at] @ Z**2])
    np.testing.assert_allclose(total, 0, atol=1e-3)
    np.testing.assert_allclose(square / weight.sum(), 1, atol=1e-3)


def test_blas_has_its_threads_back_afterwards():
    before = blas_threads()
    with one_thread_pool():
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_a_memory_map_is_not_copied_when_large(monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((20, 3), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(_rows, "_COPY_BYTES", 0)
    assert Rows(mapped, np.ones(20), Workers())._copy is None
    assert Rows(np.asarray(mapped), np.ones(20), Workers())._copy is None
    assert Rows(np.ones((20, 3), np.float32), np.ones(20), Workers())._copy is not None


def test_float16_does_not_overflow():
    X = np.full((1000, 300), 6e4, np.float16)
    X[::2] = -6e4
    rows = Rows(X, np.ones(1000), Workers())
    np.testing.assert_allclose(rows.scale_, 6e4, rtol=1e-3)
    assert in_blocks(X, lambda Z: Z.sum(axis=1, keepdims=True), 1).max() == pytest.approx(1.8e7)


def test_a_sum_that_overflows_is_no_nan():
    X = np.array([[3e38, 3e38], [-3e38, 1.0]], np.float32)
    assert in_blocks(X, lambda Z: Z[:, :1], 1).shape == (2, 1)
    with pytest.raises(InputError, match="1 of 2 rows with NaN and 1 with infinity"):
        in_blocks(np.array([[np.inf, 0], [np.nan, 0]]), lambda Z: Z[:, :1], 1)
