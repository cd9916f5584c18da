"""TODO"""

import numpy as np
import pytest

from featuretl.heads.linear import LinearProbeClassifier


@pytest.mark.parametrize("classes", [2, 4])
def test_many_rows_start_from_a_sample_and_end_at_the_same_place(classes, monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 20_000)
    X = (rng.standard_normal((20_000, 8)) + 0.5 * np.eye(classes, 8)[y]).astype(np.float32)
    weight = rng.uniform(0, 2, 20_000)
    warm = LinearProbeClassifier(0.01, tol=1e-9).fit(X, y, weight)
    monkeypatch.setattr("featuretl.heads._solver.problem._FEWEST_SAMPLED", 10**9)
    cold = LinearProbeClassifier(0.01, tol=1e-9).fit(X, y, weight)
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-4)
    assert not np.array_equal(warm.coef_, cold.coef_)


def test_a_strong_penalty_does_not_end_the_fit_before_it_begins():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 50)
    X = rng.standard_normal((150, 20)) + 2 * np.eye(3, 20)[y]
    head = LinearProbeClassifier(1e-6).fit(X, y)
    assert head.score(X, y) >= 0.8
