"""The kinds of targets: their heads, scores and log-losses."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import f1_score, r2_score
from sklearn.preprocessing import MultiLabelBinarizer

from featuretl import LinearProbeClassifier, TransferClassifier, TransferRegressor
from featuretl.exceptions import InputError
from featuretl.transfer.targets import (
    MOST_FOR_SVM,
    MultiLabelTargets,
    RegressionTargets,
    classification_targets,
)

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def kinds_and_halves(photos, as_numbers=False):
    """Tags of the crops: the object, and whether the crop is from the upper half."""
    tags = [[path.split("/")[-2]] + ["upper"] * (i % 12 < 6) for i, path in enumerate(photos)]
    tags[0] = []
    names = ["flower", "temple", "upper"]
    return [[names.index(tag) for tag in row] for row in tags] if as_numbers else tags


@pytest.mark.parametrize("form", ["lists", "indicator", "numbers"])
def test_several_labels_per_image(form, photos, shared_cache):
    tags = kinds_and_halves(photos, as_numbers=form == "numbers")
    indicator = MultiLabelBinarizer().fit_transform(tags)
    model = TransferClassifier(
        "linear", backbone="test_resnet", weights="random", cache=shared_cache, cv=3, test_size=0.5,
        random_state=0,
    ).fit(photos, indicator if form == "indicator" else tags)  # fmt: skip
    assert model.classes_.tolist() == {"lists": ["flower", "temple", "upper"]}.get(form, [0, 1, 2])
    assert model.predict(photos).shape == (24, 3)
    outer, text = model.decision_.outer, model.decision_.explain()
    assert (model.decision_.score_name, outer.images) == ("f1_samples", 12)
    assert 0 <= outer.low < outer.score < outer.high
    assert "fine-tuning" not in text


def test_the_score_of_labels_is_scikit_learns(photos):
    tags = kinds_and_halves(photos)
    indicator = MultiLabelBinarizer().fit_transform(tags)
    X = np.random.default_rng(0).normal(size=(24, 5)) + indicator @ np.ones((3, 5))
    task = classification_targets(TransferClassifier("linear"), tags, 24)
    rows = np.arange(0, 24, 2)
    for train in (np.arange(1, 24, 2), np.arange(12)):  # the second without a temple
        head = task.head("linear", len(train), True, True, 0).fit(X[train], task.y[train])
        predicted = np.zeros((12, 3), int)
        predicted[:, [["flower", "temple", "upper"].index(tag) for tag in head.classes_]] = (
            head.predict(X[rows])
        )
        expected = f1_score(indicator[rows], predicted, average="samples", zero_division=1)
        assert task.evaluate(head, X[rows], rows, True)[0].mean() == pytest.approx(expected)


def test_several_labels_per_image_have_one_strategy(photos):
    with pytest.raises(InputError, match="strategy='linear'"):
        TransferClassifier(cache=None).fit(photos, kinds_and_halves(photos))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 6, "at least 2 classes"),
        (["a", "b"], "one entry per row"),
        (np.eye(2, dtype=int)[[0, 1, 0, 1, 0, 1]] * 0 + 1, "one class per image"),
        (None, "requires y"),
    ],
)
def test_targets_are_checked(few, y, message):
    with pytest.raises(InputError, match=message):
        TransferClassifier().fit(few[0], y)


@pytest.fixture
def classes():
    return classification_targets(TransferClassifier(), ["a", "b", "c", "a", "b", "a"], 6)


def test_classes_have_codes_and_the_size_of_the_median_class(classes):
    assert classes.y.tolist() == ["a", "b", "c", "a", "b", "a"]
    assert classes.coded.codes.tolist() == [0, 1, 2, 0, 1, 0]
    assert (classes.per_class, classes.score_name, classes.proportion) == (2, "accuracy", True)


def test_a_class_absent_from_training_has_the_largest_loss(classes):
    X = np.array([[0.0], [1.0], [5.0], [0.0], [1.0], [0.1]])
    model = LinearProbeClassifier(100.0).fit(X[[0, 1, 3, 4]], classes.y[[0, 1, 3, 4]])
    rows = np.array([5, 2])
    scores, losses = classes.evaluate(model, X[rows], rows, calibrated=True)
    assert scores.tolist() == [1, 0]
    assert losses[0] == pytest.approx(-np.log(model.predict_proba(X[[5]])[0, 0]), rel=1e-5)
    assert losses[1] == pytest.approx(-np.log(1e-7))
    assert np.isnan(classes.evaluate(model, X[rows], rows, calibrated=False)[1]).all()
    found = SimpleNamespace(scores=np.array([1.0, 0.0]), losses=np.array([0.5, np.inf]))
    scores, losses = classes.evaluation_of(found, rows)
    assert losses.tolist() == [0.5, pytest.approx(-np.log(1e-7))]


@pytest.mark.parametrize("foldable", [True, False])
def test_heads_of_classes(classes, foldable):
    linear, machine, large = (
        classes.head(strategy, n, foldable, True, 3)
        for strategy, n in (("linear", 10), ("svm", MOST_FOR_SVM), ("svm", MOST_FOR_SVM + 1))
    )
    assert linear.C == ("cv" if foldable else clone(LinearProbeClassifier()).C)
    assert machine.C == ("cv" if foldable else 1.0)
    assert (machine.kernel, large.kernel) == ("rbf", "linear")
    assert machine.calibrate == foldable
    assert not classes.head("svm", 10, foldable, False, 3).calibrate
    assert linear.random_state == machine.random_state == 3


def test_labels_need_a_strategy_that_takes_them():
    targets = classification_targets(TransferClassifier("linear"), [["a"], ["a", "b"]], 2)
    assert isinstance(targets, MultiLabelTargets)
    assert (targets.per_class, targets.proportion) == (0, False)
    assert targets.coded.codes.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_mean_score_of_regression_is_r2(outputs):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, outputs)) * [1, 10][:outputs]
    y = y[:, 0] if outputs == 1 else y
    targets = RegressionTargets(TransferRegressor(), y, 50)
    predicted = y + rng.standard_normal(y.shape)
    model = SimpleNamespace(predict=lambda X: predicted[X])
    rows = np.arange(50)
    scores, losses = targets.evaluate(model, rows, rows, calibrated=True)
    assert scores.mean() == pytest.approx(r2_score(y, predicted))
    assert np.isnan(losses).all()
    # The search of fine-tuning scores standardised targets of its own rows.
    part = rows[:20]
    standardised = np.reshape((predicted - y)[part], (20, -1)) / np.reshape(y[part], (20, -1)).std(
        0
    )
    found = SimpleNamespace(scores=-np.square(standardised).mean(axis=1))
    if outputs == 1:
        np.testing.assert_allclose(targets.evaluation_of(found, part)[0], scores[part])


def test_regression_targets_that_cannot_be_scored_are_refused():
    with pytest.raises(InputError, match="constant"):
        RegressionTargets(TransferRegressor(), np.c_[np.arange(5), np.ones(5)], 5)
    with pytest.raises(InputError, match="y"):
        RegressionTargets(TransferRegressor(), [0.0, np.nan, 1.0], 3)
    with pytest.raises(InputError, match="got 3 for 4"):
        RegressionTargets(TransferRegressor(), [0.0, 0.5, 1.0], 4)


def test_the_machine_of_regression_does_not_depend_on_the_units():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = X[:, 0] + 0.1 * rng.standard_normal(40)
    head = RegressionTargets.head("svm", 40, True, True, 0)
    found = clone(head).fit(X, y).predict(X)
    other = clone(head).fit(1000 * X, 1000 * y + 7).predict(1000 * X)
    np.testing.assert_allclose(other, 1000 * found + 7, rtol=1e-6)
