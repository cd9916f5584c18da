"""forecast_accuracy: the fitted law, forecasts on digits, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featuretl import NearestMeanClassifier, forecast_accuracy
from featuretl.exceptions import InputError, ParameterError
from featuretl.labelling import AccuracyForecast
from featuretl.labelling.forecast import _measure, _order, _power_laws


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(y))
    return X[order], y[order]


@pytest.fixture(scope="module")
def forecast(digits) -> AccuracyForecast:
    X, y = digits
    return forecast_accuracy(
        X[:120], y[:120], estimator=NearestMeanClassifier(), n_repeats=8, random_state=0
    )


def law(a: float, b: float, c: float, n: int = 100) -> AccuracyForecast:
    spread = np.linspace(0.9, 1.1, 101)[:, None]
    draws = np.column_stack([a * spread[:, 0], np.full(101, b), np.full(101, c)])
    sizes, zeros, rows = np.array([10, 80]), np.zeros(2), np.ones(100_000)
    return AccuracyForecast(n, sizes, zeros, zeros, np.array([a, b, c]), draws, rows)


@pytest.mark.parametrize("a, b, c", [(0.2, 0.5, 0.05), (0.1, 1.0, 0.0), (0.3, 0.2, 0.1)])
def test_exact_power_laws_are_found(a, b, c):
    n = np.geomspace(0.05, 0.8, 7)
    found = _power_laws(n, (a * n**-b + c)[None], np.ones(7))
    for far in (1.0, 5.0):
        expected = a * far**-b + c
        np.testing.assert_allclose(
            found[0, 0] * far ** -found[0, 1] + found[0, 2], expected, atol=2e-3
        )


def test_errors_below_zero_and_curves_that_rise_stay_in_bounds():
    n = np.geomspace(0.05, 0.8, 7)
    rising = _power_laws(n, np.stack([0.1 + 0.1 * n, 0.3 / n - 0.5]), np.ones(7))
    assert (rising[:, [0, 2]] >= 0).all()
    assert rising[0, 0] == 0


def test_the_accuracy_of_more_labels_lies_in_the_interval(digits, forecast):
    X, y = digits
    for n in (120, 600, 1000):
        head = NearestMeanClassifier().fit(X[:n], y[:n])
        truth = head.score(X[1000:], y[1000:])
        value, low, high = forecast.accuracy_at(n)
        assert low <= truth <= high
        assert low <= value <= high
        assert abs(value - truth) < 0.06
    assert (np.diff(forecast.accuracies) > -0.03).all()


def test_labels_needed_inverts_accuracy_at():
    found = law(0.2, 0.5, 0.05)
    needed = found.labels_needed(0.85)  # 0.2 (n / 100)^-0.5 = 0.1
    assert needed.value == pytest.approx(400, abs=1)
    assert found.accuracy_at(400).value == pytest.approx(0.85)
    assert needed.low < 400 < needed.high <= 1000
    assert found.sentence(0.85).endswith(f"in all ({needed.low:,.0f} to {needed.high:,.0f}).")


def test_what_is_far_or_never_is_said():
    found = law(0.2, 0.5, 0.05)
    assert found.labels_needed(0.96) == (np.inf, np.inf, np.inf)
    assert "is not reached with 1,000 labels" in found.sentence(0.96)
    border = law(0.2, 0.5, 0.0).labels_needed(
        0.937
    )  # 1,008 labels: just over the limit of ten times
    assert border.value == np.inf
    assert np.isfinite(border.low)
    assert "needs more than 1,000 labels (at least" in law(0.2, 0.5, 0.0).sentence(0.937)
    with pytest.raises(ParameterError, match="ten times"):
        found.accuracy_at(1001)
    for bad in (0, 1, 95, "0.9", True):
        with pytest.raises(ParameterError, match="target_accuracy"):
            found.labels_needed(bad)


def test_accuracies_near_one_are_covered():
    held = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        means, y = 6 * rng.normal(size=(3, 16)) / 4, np.arange(2060) % 3
        X = means[y] + rng.normal(size=(2060, 16))
        head = NearestMeanClassifier()
        found = forecast_accuracy(
            X[:60], y[:60], estimator=head, n_repeats=3, random_state=seed
        ).accuracy_at(60)
        truth = head.fit(X[:60], y[:60]).score(X[60:], y[60:])
        held += found.low <= truth <= found.high
    assert held >= 18


def test_labels_without_a_mistake_may_not_suffice():
    X = np.repeat(np.eye(2), 15, axis=0)
    found = forecast_accuracy(X, X[:, 0], estimator=NearestMeanClassifier(), n_repeats=2)
    assert found.accuracy_at(30).value == found.accuracy_at(30).high == 1
    assert 0.8 < found.accuracy_at(30).low < 0.95
    alike = forecast_accuracy(X, X[:, 0], np.arange(30) // 3, estimator=NearestMeanClassifier())
    assert alike.accuracy_at(30).low < 0.75


def test_groups_are_never_on_both_sides(digits):
    X, y = digits
    X, y, group = X[:100], y[:100], np.arange(100) // 5

    class Watching(NearestMeanClassifier):
        def fit(self, X, y):
            self.seen = {row.tobytes() for row in X}
            return super().fit(X, y)

        def predict(self, X):
            of = {row.tobytes(): g for row, g in zip(digits[0][:100], group, strict=True)}
            assert not {of[r.tobytes()] for r in X} & {of[r] for r in self.seen}
            return super().predict(X)

    sizes = np.array([20, 50])
    wrong, seen = _measure(X, y, group, sizes, Watching(), 3, np.random.RandomState(0))
    assert (wrong <= seen).all()
    assert seen.any(axis=2).all()


def test_every_part_of_an_order_has_the_shares_of_the_whole():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    order = _order(y, np.arange(100), np.random.RandomState(0))
    assert sorted(order) == list(range(100))
    for size in (10, 20, 50):
        counts = np.bincount(y[order[:size]], minlength=3) / size
        np.testing.assert_allclose(counts, [0.6, 0.3, 0.1], atol=0.11)


def test_the_same_for_a_seed(digits, forecast):
    X, y = digits
    again = forecast_accuracy(
        X[:120], y[:120], estimator=NearestMeanClassifier(), n_repeats=8, random_state=0
    )
    np.testing.assert_array_equal(again.draws, forecast.draws)


@pytest.mark.parametrize(
    "rows, groups, sentence",
    [
        (slice(15), None, "got 15 labels"),
        (slice(30), None, "four per class"),
        (slice(100), np.zeros(100), "in 1 groups"),
        (slice(100), np.zeros(99), "one entry per row"),
    ],
)
def test_too_few_labels_are_one_sentence(digits, rows, groups, sentence):
    X, y = digits
    with pytest.raises(InputError, match=sentence):
        forecast_accuracy(X[rows], y[rows], groups)


def test_embeddings_with_nan_are_refused(digits):
    X, y = digits
    X = X[:100].copy()
    X[3] = np.nan
    with pytest.raises(InputError, match="finite"):
        forecast_accuracy(X, y[:100])


def test_equal_rows_are_learnt_from_or_scored_together():
    X = np.random.default_rng(0).normal(size=(40, 30))
    coin = np.random.default_rng(1).integers(0, 2, 80)
    found = forecast_accuracy(np.vstack([X, X]), coin, random_state=0)
    assert found.accuracies.max() < 0.65
