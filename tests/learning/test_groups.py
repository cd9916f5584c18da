"""All containers of groups give the same codes; equal rows share a code."""

import numpy as np
import pandas as pd
import pytest

from featuretl import DomainAdaptedClassifier, NoveltyDetector, forecast_accuracy
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl.adaptation import domain_gap
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.multi_task import MultiTaskHead
from featuretl.heads.ridge import LinearProbeRegressor
from featuretl.heads.semi_supervised import SemiSupervisedProbeClassifier
from featuretl.heads.svm import SVMProbeClassifier

NAMES = ["ann", "bob", "ann", "cy"]


@pytest.mark.parametrize(
    "groups",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES, object),
        np.array(NAMES)[:, None],
        [[name] for name in NAMES],
        pd.Series(NAMES, index=[7, 7, 1, 0]),
        pd.Series(NAMES, dtype="string"),
        pd.Series(NAMES, dtype="category"),
        pd.DataFrame({"who": NAMES}),
        [1, 2.5, 1.0, 3],
        [1, "1", 1, None.__class__],
        pd.Series([5, 6, 5, 7], dtype="Int64"),
        pd.to_datetime(["2020", "2021", "2020", "2022"]),
    ],
)
def test_groups_come_in_many_ways(groups):
    assert read_groups("X", groups, 4).tolist() == [0, 1, 0, 2]
    assert read_groups("X", None, 4) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["ann", None, "cy", float("nan")], "2 of 4 rows have none"),
        (["ann", "", "cy", pd.NA], "2 of 4 rows have none"),
        ([1.0, np.nan, np.nan, np.nan], "3 of 4 rows have none"),
        (np.array([1.0, 2, np.nan, 3])[:, None], "1 of 4 rows have none"),
        (pd.Series([1, None, 2, 3], dtype="Int64"), "1 of 4 rows have none"),
        (pd.Series(["a", None, "b", "c"], dtype="string"), "1 of 4 rows have none"),
        (pd.to_datetime(["2020", None, "2020", "2022"]), "1 of 4 rows have none"),
        (np.ma.masked_equal([1, 2, 1, 9], 9), "1 of 4 rows have none"),
        ([1, 2, 3], "one entry per row of X; got 3 for 4"),
        (np.ones((4, 2)), "one value per row; got shape"),
        ([("a", 1)] * 4, "one value per row; got shape"),
        ("ann", "one value per row; got shape"),
        ([{"a"}, {"b"}, {"a"}, {"c"}], "numbers or text"),
    ],
)
def test_what_is_no_group_is_one_sentence(groups, message):
    with pytest.raises(InputError, match=message):
        read_groups("X", groups, 4)


def fits():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), np.tile([0, 1], 20)
    adapted = DomainAdaptedClassifier(random_state=0)
    return [
        lambda g: LinearProbeClassifier("cv").fit(X, y, groups=g),
        lambda g: SVMProbeClassifier().fit(X, y, groups=g),
        lambda g: LinearProbeRegressor().fit(X, y, groups=g),
        lambda g: SemiSupervisedProbeClassifier().fit(X, y, groups=g),
        lambda g: MultiTaskHead().fit(X, {"a": y}, groups=g),
        lambda g: NoveltyDetector(random_state=0).fit(X, groups=g),
        lambda g: forecast_accuracy(X, y, g, n_repeats=2, random_state=0),
        lambda g: domain_gap(X, X + 1, groups=g),
        lambda g: domain_gap(X, X + 1, groups_target=g),
        lambda g: adapted.fit(X, y, X + 1, groups=g),
    ]


@pytest.mark.parametrize("fit", fits())
def test_everything_that_takes_groups_reads_them_alike(fit):
    groups = np.arange(40) // 2
    fit(groups[:, None])
    with pytest.raises(InputError, match="2 of 40 rows have none"):
        fit([None, float("nan"), *groups[2:].tolist()])


def test_equal_rows_are_found_in_any_order_of_memory():
    X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
    X[4], X[5] = X[1], X[0]
    X[:2, 2], X[4:, 2] = 0.0, -0.0
    for matrix in (X, np.asfortranarray(X), X.astype(np.float64)):
        assert copies_of(matrix).tolist() == [0, 1, 2, 3, 1, 0]
    assert copies_of(X[:4]) is None


def test_rows_are_joined_through_groups_and_contents():
    unit = joined(np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 1, 2, 3, 4]))
    assert len(set(unit[:4])) == 1
    assert len(set(unit)) == 3
    assert joined(None, None) is None
