"""A ShardedMatrix indexes like an array, and heads read it in bounded memory."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

from featuretl._learning import rows as _rows
from featuretl._learning.sharded import ShardedMatrix
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.nearest_mean import NearestMeanClassifier
from featuretl.heads.ridge import LinearProbeRegressor
from featuretl.heads.svm import SVMProbeClassifier

SIZES = (5, 1, 0, 700, 300)


def written(folder, X, sizes=SIZES):
    starts = np.cumsum([0, *sizes])
    for number, start in enumerate(starts[:-1]):
        np.save(folder / f"{number}.npy", X[start : starts[number + 1]])
    return ShardedMatrix(folder / f"{number}.npy" for number in range(len(sizes)))


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=sum(SIZES))
    X = rng.normal(size=(len(y), 16)) + rng.normal(size=(3, 16))[y]
    return X.astype(np.float16), y


@pytest.fixture
def sharded(tmp_path, blobs) -> ShardedMatrix:
    return written(tmp_path, blobs[0])


@pytest.mark.parametrize(
    "index",
    [
        0, -1, 700, slice(None), slice(3, 8), slice(4, 5), slice(5, 5), slice(-4, None), slice(0, 50, 7),
        slice(None, None, -1), [1005, 0, 3, 3], np.array([], int), np.arange(1006) % 2 == 0,
        (slice(2, 9), slice(1, 3)), (slice(None), 4), (5, 1),
    ],
    ids=str,
)  # fmt: skip
def test_rows_are_those_of_an_array(sharded, blobs, index):
    np.testing.assert_array_equal(sharded[index], blobs[0][index])
    assert sharded[index].dtype == np.float16


def test_it_looks_like_an_array(sharded, blobs):
    X = blobs[0]
    for name in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(sharded, name) == getattr(X, name)
    assert len(sharded) == len(X)
    np.testing.assert_array_equal(np.asarray(sharded, np.float64), X.astype(np.float64))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sharded))[3:9], X[3:9])
    with pytest.raises(IndexError):
        sharded[len(X)]


@pytest.mark.parametrize("head", [
    LinearProbeClassifier(), LinearProbeClassifier("cv", cv=2, random_state=0, calibrate=True),
    LinearProbeRegressor(), NearestMeanClassifier(), SVMProbeClassifier(random_state=0),
], ids=lambda head: type(head).__name__)  # fmt: skip
@pytest.mark.parametrize("copied", [True, False])
def test_heads_learn_what_they_learn_of_an_array(sharded, blobs, head, copied, monkeypatch):
    if not copied:
        monkeypatch.setattr(_rows, "_COPY_BYTES", 0)
    X, y = blobs
    expected = head.fit(X, y).predict(X)
    found = head.fit(sharded, y).predict(sharded)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert head.n_features_in_ == 16


def test_a_probe_of_a_matrix_in_files_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "_COPY_BYTES", 0)
    monkeypatch.setattr(_rows, "_BLOCK_ELEMENTS", 2**16)
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=60_000)
    centres = rng.normal(size=(2, 256)).astype(np.float16)
    for number in range(6):
        part = slice(10_000 * number, 10_000 * (number + 1))
        noise = rng.standard_normal((10_000, 256), np.float32)
        np.save(tmp_path / f"{number}.npy", (centres[y[part]] / 4 + noise).astype(np.float16))
    X = ShardedMatrix(tmp_path / f"{number}.npy" for number in range(6))
    tracemalloc.start()
    head = LinearProbeClassifier().fit(X, y)
    accuracy = head.score(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert accuracy > 0.95
    assert peak < 40e6 < 2 * X.nbytes  # float32 would be 61 MB; 16 MB are a sample of 8,192 rows


def test_files_that_do_not_fit_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    for name, array in {
        "width": np.zeros((2, 4), np.float32),
        "dtype": np.zeros((2, 3), np.float16),
        "shape": np.zeros(3, np.float32),
        "kind": np.zeros((2, 3), int),
        "object": np.array([[None, 1]]),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=name):
            ShardedMatrix([tmp_path / "a.npy", tmp_path / f"{name}.npy"])
    (tmp_path / "torn.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    for name in ("torn.npy", "gone.npy"):
        with pytest.raises(InputError, match=name):
            ShardedMatrix([tmp_path / name])
    with pytest.raises(InputError, match="at least one file"):
        ShardedMatrix([])


def test_another_width_than_fitted_is_refused(sharded, blobs):
    head = NearestMeanClassifier().fit(blobs[0][:, :4], blobs[1])
    with pytest.raises(ValueError, match="4 features"):
        head.predict(sharded)
