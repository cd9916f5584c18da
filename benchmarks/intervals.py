"""Coverage of confidence intervals, estimated on many small samples of simulated populations.

    python benchmarks/intervals.py scores      # the intervals of metrics_report
    python benchmarks/intervals.py forecast    # the intervals of forecast_accuracy, near 1

"scores": the logits of each class are normally distributed around a corner of their own, and each
group, if any, has its own shift. Regression targets are predicted with skewed errors. Each sample
of n rows gives one report; the true score is that of 200,000 rows. "coverage" is the fraction of
samples whose 95% interval contains it. "no interval" is the fraction of samples without an
interval, which "coverage" ignores. "width" is the median.

"forecast": each sample labels 60 to 120 rows of normally distributed classes. The true score is the
accuracy, on 4,000 other rows, of a head trained on 1 or 4 times as many labels.
"""

from __future__ import annotations

import warnings
from typing import Any

import click
import numpy as np
from common import show
from scipy.special import softmax

from featuretl import NearestMeanClassifier, forecast_accuracy, metrics_report

# Rows, groups (0: none), class probabilities, class distance, spread of the groups.
POPULATIONS: tuple[tuple[int, int, tuple[float, ...], float, float], ...] = (
    (30, 0, (0.5, 0.5), 3.0, 0.0),
    (30, 0, (0.6, 0.3, 0.1), 1.5, 0.0),
    (100, 0, (0.4, 0.3, 0.15, 0.1, 0.05), 3.0, 0.0),
    (300, 0, (0.6, 0.3, 0.1), 1.5, 0.0),
    (100, 10, (0.6, 0.3, 0.1), 1.5, 0.7),
    (100, 10, (0.6, 0.3, 0.1), 3.0, 0.7),
    (200, 40, (0.5, 0.5), 2.0, 0.7),
)
CLASS_SCORES = (
    "accuracy",
    "balanced_accuracy",
    "precision_macro",
    "f1_macro",
    "roc_auc",
    "log_loss",
)
NUMBER_SCORES = ("r2", "mean_absolute_error", "root_mean_squared_error")
# Labels, groups, classes, class distance, spread of the groups.
FORECASTS = (
    (60, 0, 2, 3.5, 0.0),
    (60, 0, 3, 5.0, 0.0),
    (100, 0, 5, 4.0, 0.0),
    (120, 20, 3, 5.0, 0.7),
)

samples_option = click.option("--samples", default=300, show_default=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(help=__doc__)
def main() -> None:
    """Choose a benchmark."""
    warnings.simplefilter("ignore")


@main.command()
@samples_option
@json_option
def scores(samples: int, as_json: bool) -> None:
    """Estimate the coverage of the intervals of `metrics_report`."""
    table = []
    for n, n_groups, priors, distance, spread in POPULATIONS:
        rng = np.random.default_rng(0)
        many = 200_000, n_groups and 200_000 * n_groups // n
        for draw, names in ((_classes, CLASS_SCORES), (_numbers, NUMBER_SCORES)):
            truth = metrics_report(
                *draw(rng, *many, priors, distance, spread)[:3], n_bootstrap=0
            ).scores
            found: dict[str, list[Any]] = {name: [] for name in names}
            for _ in range(samples):
                *predictions, groups = draw(rng, n, n_groups, priors, distance, spread)
                report = metrics_report(*predictions, groups=groups)
                for name in names:
                    found[name].append(report.intervals[name])
            for name in names:
                row = {"score": name, "n": n, "groups": n_groups or "none", "truth": truth[name]}
                table.append(row | _coverage(np.array(found[name]), truth[name]))
    show(table, as_json)


@main.command()
@samples_option
@json_option
def forecast(samples: int, as_json: bool) -> None:
    """Estimate the coverage of the intervals of `forecast_accuracy`."""
    table = []
    for n, n_groups, n_classes, distance, spread in FORECASTS:
        rng, head = np.random.default_rng(0), NearestMeanClassifier()
        found: dict[int, list[Any]] = {1: [], 4: []}
        for seed in range(samples):
            means = distance * rng.normal(size=(n_classes, 16)) / 4
            X, y, groups = _rows(rng, n, n_groups, means, spread)
            asked = forecast_accuracy(X, y, groups, estimator=head, random_state=seed)
            X_test, y_test, _ = _rows(rng, 4000, n_groups and 4000, means, spread)
            for times, rows in found.items():
                if times > 1:
                    X, y, _ = _rows(rng, times * n, times * n_groups, means, spread)
                truth = head.fit(X, y).score(X_test, y_test)
                rows.append((*asked.accuracy_at(times * n)[1:], truth))
        for times, rows in found.items():
            *ends, truths = np.array(rows).T
            row = {
                "labels": n,
                "times": times,
                "groups": n_groups or "none",
                "truth": truths.mean(),
            }
            table.append(row | _coverage(np.column_stack(ends), truths))
    show(table, as_json)


def _coverage(intervals: Any, truth: Any) -> dict[str, Any]:
    low, high = intervals.T
    is_there = np.isfinite(high - low)
    held = ((low <= truth) & (truth <= high))[is_there]
    nominal = {"nominal": 0.95, "coverage": held.mean() if held.size else np.nan}
    return nominal | {
        "no interval": 1 - is_there.mean(),
        "width": np.median((high - low)[is_there]) if held.size else np.nan,
    }


def _shifts(rng: Any, n: int, n_groups: int, width: int, spread: float) -> tuple[Any, Any]:
    """Return the groups (n,), or None, and the shift of each row by its group (n, width)."""
    if not n_groups:
        return None, np.zeros((n, width))
    groups = np.arange(n) % n_groups
    return groups, spread * rng.normal(size=(n_groups, width))[groups]


def _classes(
    rng: Any, n: int, n_groups: int, priors: Any, distance: float, spread: float
) -> tuple[Any, ...]:
    k = len(priors)
    groups, shift = _shifts(rng, n, n_groups, k, spread)
    y = rng.choice(k, n, p=priors)
    y[:k] = np.arange(k)
    proba = softmax(distance * (distance * np.eye(k)[y] + rng.normal(size=(n, k)) + shift), axis=1)
    return y, proba.argmax(axis=1), proba, groups


def _numbers(
    rng: Any, n: int, n_groups: int, priors: Any, distance: float, spread: float
) -> tuple[Any, ...]:
    groups, shift = _shifts(rng, n, n_groups, 2, spread)
    predicted = rng.normal(size=n) + shift[:, 0]
    error = rng.gamma(2, size=n) / 2 - 1 + shift[:, 1]
    return predicted + 0.5 * error, predicted, None, groups


def _rows(rng: Any, n: int, n_groups: int, means: Any, spread: float) -> tuple[Any, Any, Any]:
    groups, shift = _shifts(rng, n, n_groups, means.shape[1], spread)
    y = rng.permutation(np.arange(n) % len(means))
    return means[y] + rng.normal(size=(n, means.shape[1])) + shift, y, groups


if __name__ == "__main__":
    main()
