"""Scores agree with values computed directly from the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.preprocessing import scale
from threadpoolctl import threadpool_limits

from featuretl.exceptions import InputError, ParameterError
from featuretl.ranking import log_me
from featuretl.ranking.scores import log_me_score

WINE, KINDS = load_wine(return_X_y=True)
WINE = scale(WINE)
DIGITS, VALUES = (part[:50] for part in load_digits(return_X_y=True))


def greatest_evidence(X: np.ndarray, y: np.ndarray) -> float:
    """Maximize the Gaussian density of y, with n x n covariance, over alpha and beta."""
    identity, kernel = np.eye(len(y)), X @ X.T

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = identity / beta + kernel / alpha
        distance = y @ np.linalg.solve(covariance, y)
        return (np.linalg.slogdet(2 * np.pi * covariance)[1] + distance) / 2

    scale_ = np.log(y.var())
    starts = [(a - scale_, b - scale_) for a in (-2, 2, 6) for b in (-1, 3)]
    with threadpool_limits(1):
        return -min(minimize(negative, start, method="Nelder-Mead").fun for start in starts)


@pytest.mark.parametrize(
    ("X", "y"), [(WINE[::3], KINDS[::3]), (DIGITS, VALUES % 3)], ids=["more images", "more columns"]
)
def test_log_me_is_the_greatest_evidence_of_classes(X, y):
    expected = np.mean([greatest_evidence(X, 1.0 * (y == c)) for c in range(3)]) / len(y)
    assert log_me(X, y) == pytest.approx(expected, rel=1e-5)
    assert log_me(1000 * X, y) == pytest.approx(expected, rel=1e-5)
    assert log_me(X.astype(np.float32), np.array(["a", "b", "c"])[y]) == pytest.approx(
        expected, rel=1e-5
    )


def test_log_me_is_the_greatest_evidence_of_numbers():
    X, y = (part[:60] for part in load_diabetes(return_X_y=True))
    expected = greatest_evidence(20 * X, y) / len(y)
    assert log_me(X, y + 0.5) == log_me(X, y + 0.5, task="regression")
    assert log_me(X, y, task="regression") == pytest.approx(expected, rel=1e-5)
    both = log_me(X, np.column_stack([y, -y]), task="regression")
    assert both == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("estimate", [log_me_score, lambda X, y: log_me_score(X, 1.0 * y[:, None])])
@pytest.mark.parametrize(("X", "y"), [(WINE, KINDS), (WINE[::4], KINDS[::4])], ids=["178", "45"])
def test_the_influence_of_an_image_is_what_is_lost_without_it(X, y, estimate):
    one = estimate(X, y)
    rows = np.arange(len(y))
    lost = np.array([one.value - estimate(X[rows != i], y[rows != i]).value for i in rows])
    lost -= lost.mean()
    assert one.influence.sum() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(one.influence, lost)[0, 1] > 0.995
    assert one.influence.std() == pytest.approx(lost.std(), rel=0.1)


def test_useless_and_perfect_embeddings():
    noise = np.random.default_rng(0).standard_normal((60, 5))
    y = np.arange(60) % 2
    assert log_me(noise, y) < log_me(y[:, None] + 0.01 * noise, y)
    assert np.isfinite(log_me(np.eye(2)[y], y))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_me([[1.0], [np.nan]], [0, 1]), "X must be finite; got 1 of 2 rows with NaN"),
        (lambda: log_me([1.0, 2.0], [0, 1]), r"X of log_me must have the shape \(n, d\)"),
        (lambda: log_me(WINE, KINDS[1:]), "y must have one entry per row of X; got 177"),
        (lambda: log_me(WINE, KINDS * 0), "y of log_me must have at least 2 classes"),
        (lambda: log_me(WINE, np.full(178, "a"), task="regression"), "y of log_me must hold numbers"),
        (lambda: log_me(WINE, np.full(178, np.inf), task="regression"), "y of log_me must hold a finite number in every row; got an infinite one in 178 of 178"),
        (lambda: log_me(WINE, KINDS + 0.5, task="classification"), "y of log_me must hold classes"),
        (lambda: log_me(WINE, np.eye(3, dtype=int)[KINDS]), "y of log_me must hold one label for each row"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_unknown_task_is_refused():
    with pytest.raises(ParameterError, match="did you mean 'regression'"):
        log_me(WINE, KINDS, task="regressions")
