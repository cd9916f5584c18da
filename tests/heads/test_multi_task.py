"""MultiTaskHead: each task equals its own head; missing labels and kinds of columns are found."""

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featuretl import LinearProbeClassifier, LinearProbeRegressor, MultiTaskHead
from featuretl.exceptions import InputError, ParameterError


@parametrize_with_checks([MultiTaskHead()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """300 images of digits as rows; the digit, whether it is even, and the amount of ink."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:300].astype(np.float32), y[:300]
    ink = X[:, ::2].sum(axis=1, dtype=np.float64) / 7
    table = pd.DataFrame({"digit": [f"d{digit}" for digit in y], "even": y % 2 == 0, "ink": ink})
    return X, table


def test_each_task_is_what_it_is_alone(digits):
    X, table = digits
    head = MultiTaskHead().fit(X, table)
    assert head.tasks_ == {"digit": "classification", "even": "classification", "ink": "regression"}
    alone = {name: LinearProbeClassifier().fit(X, table[name]) for name in ("digit", "even")}
    alone["ink"] = LinearProbeRegressor().fit(X, table["ink"])
    predicted = head.predict(X)
    assert predicted.dtype == object
    for k, (name, one) in enumerate(alone.items()):
        assert predicted[:, k].tolist() == one.predict(X).tolist()
        np.testing.assert_array_equal(head.named_estimators_[name].coef_, one.coef_)
    proba = head.predict_proba(X)
    assert list(proba) == list(head.classes_) == ["digit", "even"]
    np.testing.assert_array_equal(proba["digit"], alone["digit"].predict_proba(X))
    assert head.classes_["even"].tolist() == [False, True]
    scores = [one.score(X, table[name]) for name, one in alone.items()]
    assert head.score(X, table) == pytest.approx(np.mean(scores))
    assert head.ranges_["ink"] == (table["ink"].min(), table["ink"].max())


@pytest.mark.parametrize("missing", [None, np.nan, "", pd.NA])
def test_a_task_learns_from_the_rows_that_have_its_label(missing, digits):
    X, table = digits
    y = {
        "digit": table["digit"].to_numpy(object).copy(),
        "ink": table["ink"].to_numpy(object).copy(),
    }
    y["digit"][:90] = missing
    y["ink"][::2] = missing
    head = MultiTaskHead().fit(X, y)
    digit = LinearProbeClassifier().fit(X[90:], table["digit"][90:])
    ink = LinearProbeRegressor().fit(X[1::2], table["ink"][1::2])
    np.testing.assert_array_equal(head.named_estimators_.digit.coef_, digit.coef_)
    np.testing.assert_array_equal(head.named_estimators_.ink.coef_, ink.coef_)
    assert "digit: LinearProbeClassifier on 210 of 300 rows (text)." in head.decision_
    expected = (
        digit.score(X[90:], table["digit"][90:]) + ink.score(X[1::2], table["ink"][1::2])
    ) / 2
    assert head.score(X, y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "kind", "why"),
    [
        (["a", "b"], "classification", "text"),
        ([True, None], "classification", "True and False"),
        ([1, 2.0], "classification", "2 different whole numbers"),
        ([1.0, np.nan], "classification", "1 different whole numbers"),
        ([1, 2.5], "regression", "numbers with a fraction"),
        (range(21), "regression", "21 different whole numbers, more than 20"),
        (pd.Series(range(21), dtype="category"), "classification", "categories"),
    ],
)
def test_what_a_column_is(values, kind, why):
    from featuretl._learning.columns import read_column

    column = read_column("c", values)
    assert (column.kind, column.why) == (kind, why)
    assert column.y.dtype.kind == ("f" if kind == "regression" else column.y.dtype.kind)
    assert len(column.rows) == len(column.y)


def test_heads_by_hand(digits):
    X, table = digits
    y = pd.DataFrame(
        {"digit": table["digit"], "number": [int(name[1:]) for name in table["digit"]]}
    )
    machine = make_pipeline(StandardScaler(), SVC())
    head = MultiTaskHead({"digit": machine, "number": LinearProbeRegressor()}).fit(X, y)
    assert head.tasks_ == {"digit": "classification", "number": "regression"}
    assert "number: LinearProbeRegressor on 300 of 300 rows (as given)." in head.decision_
    assert not hasattr(head, "predict_proba")  # SVC and regressors have none
    assert not hasattr(machine, "classes_")  # cloned
    assert clone(head).get_params(deep=False)["heads"].keys() == {"digit", "number"}
    assert 0.8 < head.score(X, y) <= 1


def test_all_numbers_are_an_array_of_numbers(digits):
    X, table = digits
    Y = np.column_stack([table["ink"], table["ink"] ** 2])
    head = MultiTaskHead().fit(X, Y)
    assert head.predict(X).dtype == np.float64
    assert head.tasks_ == {"0": "regression", "1": "regression"}
    assert not hasattr(head, "predict_proba")
    mixed = [["a", 0.5], ["b", 1.5]] * 4
    assert list(MultiTaskHead().fit(X[:8], mixed).tasks_.values()) == [
        "classification",
        "regression",
    ]


def test_groups_and_weights_reach_the_heads_that_take_them(digits):
    X, table = digits
    groups = np.arange(len(X)) // 10
    probe = LinearProbeClassifier("cv", cv=3, random_state=0)
    y = table[["digit", "ink"]].copy()
    y.loc[::3, "digit"] = None
    weight = 1.0 + groups % 3
    head = MultiTaskHead({"digit": probe}).fit(X, y, sample_weight=weight, groups=groups)
    rows = y["digit"].notna().to_numpy()
    own = clone(probe).fit(X[rows], table["digit"][rows], weight[rows], groups[rows])
    np.testing.assert_array_equal(head.named_estimators_.digit.coef_, own.coef_)
    with config_context(enable_metadata_routing=True):
        routed = MultiTaskHead({"digit": probe}).set_fit_request(groups=True)
        scores = cross_val_score(routed, X, y, cv=GroupKFold(3), params={"groups": groups})
    assert (scores > 0.8).all()


def test_mistakes(digits):
    X, table = digits
    fit = MultiTaskHead().fit
    for y, message in [
        (None, "y"),
        (table["digit"], "got shape"),
        (table[:10], "'digit' of y .*got 10 for 300"),
        ({"empty": [None] * 300}, "'empty' of y"),
        ({"mixed": ["a", 1] * 150}, "'mixed' of y .*got int and str"),
        ({"one": ["a"] * 300}, "'one' of y.*2 classes"),
        ({1: table["digit"], "1": table["digit"]}, "two columns of the same name"),
        ([["a"], ["b", "c"]] * 150, "equally many values in every row"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            fit(X, y)
    for heads, message in [
        ({"digits": LinearProbeClassifier()}, "'heads' .* digit, even, ink; got 'digits'"),
        ({"digit": StandardScaler()}, "'heads' .*got StandardScaler"),
        (LogisticRegression(), "'heads' .*got LogisticRegression"),
    ]:  # fmt: skip
        with pytest.raises(ParameterError, match=message):
            MultiTaskHead(heads).fit(X, table)
    with pytest.raises(InputError, match=r"'digit' of y .*numbers"):
        MultiTaskHead({"digit": LinearProbeRegressor()}).fit(X, table)
    with pytest.raises(InputError, match="'even'; got digit"):
        fit(X, table).score(X, table[["digit"]])
