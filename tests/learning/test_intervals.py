"""Each kind of score has an interval of its own, or none if none is reliable."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from featuretl._learning.intervals import intervals_of, losses_of
from featuretl._learning.metrics import metrics_report
from featuretl.exceptions import InputError


def test_scores_without_a_mistake_have_a_width():
    y = np.arange(30) % 3
    report = metrics_report(y, y, np.eye(3)[y])
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "precision_weighted", "roc_auc"):
        low, high = report.intervals[name]
        assert 0.8 < low < 0.9, name
        assert high == 1, name
    assert report.intervals["log_loss"] == (0, np.inf)
    rare = metrics_report([0] * 27 + [1] * 3, [0] * 27 + [1] * 3)
    assert rare.intervals["balanced_accuracy"][0] < 0.75 < rare.intervals["accuracy"][0]


def test_an_accuracy_near_one_is_covered():
    rng, held = np.random.default_rng(0), []
    for _ in range(100):
        y = rng.integers(2, size=30)
        wrong = rng.uniform(size=30) < 0.02
        intervals = metrics_report(y, np.where(wrong, 1 - y, y)).intervals
        held.append([intervals[s][0] <= 0.98 <= intervals[s][1] for s in ("accuracy", "f1_macro")])
    assert (np.mean(held, axis=0) > 0.9).all()


def test_groups_count_as_one_draw(classification):
    y, y_pred, proba = classification(n=40)
    alone = metrics_report(y, y_pred, proba)
    twice = {"groups": np.tile(np.arange(40), 3)}
    copies = metrics_report(np.tile(y, 3), np.tile(y_pred, 3), np.tile(proba, (3, 1)), **twice)
    for name, between in alone.intervals.items():
        assert copies.intervals[name] == pytest.approx(between, abs=0.05), name
    values = np.random.default_rng(0).normal(size=40)
    alone = metrics_report(values, values + 0.1 * values[::-1])
    copies = metrics_report(np.tile(values, 3), np.tile(values + 0.1 * values[::-1], 3), **twice)
    for name, between in alone.intervals.items():
        assert copies.intervals[name] == pytest.approx(between, rel=0.02), name
        assert between[0] < alone.scores[name] < between[1], name
    with pytest.raises(InputError, match="groups must have one entry per row"):
        metrics_report(y, y_pred, groups=[1, 2])


def test_several_outputs_have_intervals_as_one_has():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 1))
    predicted = y + 0.2 * rng.normal(size=y.shape)
    one = metrics_report(y[:, 0], predicted[:, 0]).intervals
    both = metrics_report(np.hstack([y, y]), np.hstack([predicted, predicted])).intervals
    for name, between in one.items():
        assert both[name] == pytest.approx(between), name


def test_losses_are_those_of_rows_and_stay_finite(classification):
    _, _, proba = classification()
    y = np.arange(len(proba)) % 3
    assert losses_of(y, proba).mean() == pytest.approx(log_loss(y, proba))
    labels = (proba > 0.4).astype(int)
    of_labels = [log_loss(labels[:, k], proba[:, k], labels=[0, 1]) for k in range(3)]
    assert losses_of(labels, proba).mean() == pytest.approx(np.mean(of_labels))
    certain = losses_of(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert certain.tolist() == [0, pytest.approx(-np.log(np.finfo(float).eps))]


@pytest.mark.parametrize(("mistakes", "is_known"), [(4, False), (5, True)])
def test_the_log_loss_has_an_interval_from_five_mistakes_on(mistakes, is_known):
    y = np.arange(60) % 2
    y_pred = np.where(np.arange(60) < mistakes, 1 - y, y)
    predictions = y, y_pred, np.where(np.eye(2)[y_pred] == 1, 0.8, 0.2)
    rows = np.arange(60)
    found = intervals_of(
        "classification", predictions, lambda *_: {"log_loss": 0.3}, rows, 0.95, 200, 0
    )
    low, high = found["log_loss"]
    assert (high < np.inf) == is_known
    assert low <= losses_of(y, predictions[2]).mean() <= high


def test_intervals_of_errors_agree_with_each_other():
    rng = np.random.default_rng(0)
    y = rng.normal(size=80)
    scores = metrics_report(y, y + 0.3 * rng.normal(size=80))
    between, value = scores.intervals, scores.scores
    squared = np.array(between["mean_squared_error"])
    assert between["root_mean_squared_error"] == pytest.approx(tuple(squared**0.5), rel=0.05)
    for name, (low, high) in between.items():
        assert low < value[name] < high, name
    assert between["r2"][1] <= 1
