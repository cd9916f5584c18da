import numpy as np
import pytest
from sklearn import metrics

from featuretl._learning.metrics import metrics_report
from featuretl.exceptions import InputError, ParameterError


def test_classification_scores_are_scikit_learns(classification):
    y, y_pred, proba = classification()
    report = metrics_report(y, y_pred, proba, n_bootstrap=50)
    expected = {
        "accuracy": metrics.accuracy_score(y, y_pred),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, y_pred),
        "precision_macro": metrics.precision_score(y, y_pred, average="macro"),
        "recall_weighted": metrics.recall_score(y, y_pred, average="weighted"),
        "f1_macro": metrics.f1_score(y, y_pred, average="macro"),
        "log_loss": metrics.log_loss(y, proba),
        "roc_auc": metrics.roc_auc_score(y, proba, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert report.scores[name] == pytest.approx(value), name
    assert report.task == "classification"
    assert report.per_class["bee"]["support"] == (y == "bee").sum()
    # The calibration error is biased upwards by more than its standard error.
    assert set(report.intervals) == set(report.scores) - {"calibration_error"}
    for name, (low, high) in report.intervals.items():
        assert low <= high, name
    low, high = report.intervals["accuracy"]
    assert low < report.scores["accuracy"] < high


@pytest.mark.parametrize("decimals", [1, 8])
def test_ties_and_absent_classes_count_in_the_roc_as_in_scikit_learn(classification, decimals):
    y, y_pred, proba = classification(classes=3)
    proba = np.round(np.column_stack([proba, np.zeros(len(y))]), decimals)
    proba /= proba.sum(axis=1, keepdims=True)
    y, y_pred = np.unique(y, return_inverse=True)[1], proba.argmax(axis=1)
    report = metrics_report(y, y_pred, proba, labels=range(4), n_bootstrap=0)
    each = [metrics.roc_auc_score(y == code, proba[:, code]) for code in range(3)]
    assert report.scores["roc_auc"] == pytest.approx(np.mean(each), abs=1e-12)


def test_the_probability_of_the_second_of_two_classes_suffices(classification):
    y, y_pred, proba = classification(classes=2)
    short = metrics_report(y, y_pred, proba[:, 1], n_bootstrap=5)
    assert short.scores == metrics_report(y, y_pred, proba, n_bootstrap=0).scores
    assert short.scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, proba[:, 1]))


def test_labels_order_the_columns(classification):
    y, y_pred, proba = classification()
    order = [2, 0, 1]
    names = np.array(["ant", "bee", "cow"])[order]
    a = metrics_report(y, y_pred, proba[:, order], labels=names, n_bootstrap=0).scores
    b = metrics_report(y, y_pred, proba, n_bootstrap=0).scores
    assert a == pytest.approx(b)


def test_resamples_that_lack_a_class_do_not_warn():
    y, y_pred = ["a"] * 11 + ["b"], ["a"] * 10 + ["c"] * 2
    report = metrics_report(y, y_pred, np.full((12, 3), 1 / 3), labels=["a", "b", "c"])
    assert report.scores["balanced_accuracy"] == pytest.approx(10 / 22)


def test_multilabel_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    proba = rng.uniform(size=(80, 4))
    Y = (rng.uniform(size=proba.shape) < proba).astype(int)
    Y[:, 3] = 0
    report = metrics_report(Y, (proba > 0.5) * 1, proba, labels=["a", "b", "c", "d"], n_bootstrap=9)
    seen = slice(0, 3)
    average = metrics.average_precision_score(Y[:, seen], proba[:, seen])
    assert report.task == "multilabel"
    assert report.scores["average_precision"] == pytest.approx(average)
    assert report.scores["hamming_loss"] == metrics.hamming_loss(Y, (proba > 0.5) * 1)
    assert report.per_class["d"]["support"] == 0


def test_regression():
    y = np.array([0.5, 1.5, 2.5, 4.0])
    report = metrics_report(y, y + 0.5, n_bootstrap=20)
    assert report.task == "regression"
    assert report.scores["mean_absolute_error"] == 0.5
    assert report.per_class == {}
    assert metrics_report([1, 2, 3], [1, 2, 4], task="regression").scores["r2"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0, 1, 1]), {}, r"same shape and rows; got \(2,\) and \(3,\)"),
        (([], []), {}, "same shape and rows"),
        (([0, 1], [0, 1], [[1, 0, 0]] * 2), {}, r"a column per class, \(2, 2\); got \(2, 3\)"),
        (([0, 1], [0, 1], [[2, -1]] * 2), {}, "probabilities"),
        (([0, 7], [0, 1]), {"labels": [0, 1]}, "1 classes that labels lacks, such as 7"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, options, message):
    with pytest.raises(InputError, match=message):
        metrics_report(*arguments, **options)


def test_refuses_wrong_parameters():
    with pytest.raises(ParameterError, match="'task' parameter of metrics_report"):
        metrics_report([0, 1], [0, 1], task="classify")
    with pytest.raises(ParameterError, match="'n_bootstrap' parameter of metrics_report"):
        metrics_report([0, 1], [0, 1], n_bootstrap=-1)


def test_probabilities_are_taken_for_predictions():
    y = ["b", "a", "b", "b"]
    proba = np.array([[0.1, 0.9], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    predicted = np.array(["a", "b"])[proba.argmax(axis=1)]
    short = metrics_report(y, proba, n_bootstrap=0)
    long = metrics_report(y, predicted, proba, labels=["a", "b"], n_bootstrap=0)
    assert short.scores == long.scores
    assert "accuracy: 0.750" in repr(short)
    with pytest.raises(InputError, match=r"3 columns and 2 classes: pass labels"):
        metrics_report(y, np.ones((4, 3)) / 3)
    numbers = metrics_report([0.5, 1.5, 2.5], [[0.5], [1.0], [2.0]], n_bootstrap=0)
    assert numbers.task == "regression"
