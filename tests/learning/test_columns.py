"""Multi-task targets: a column for each task, of the kind that its values suggest."""

import importlib.util

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_iris

from featuretl import LinearProbeRegressor, MultiTaskHead, TransferMultiTask
from featuretl._learning.columns import MOST_CLASSES, in_column, read_column, table_of
from featuretl.exceptions import InputError, ModelError

X, SPECIES = (part[::5] for part in load_iris(return_X_y=True))  # 30 rows, 10 of each species
NAMES = ["one", "two", "three"]

FRAMES = {
    "pandas": pd.DataFrame,
    "nullable": lambda t: pd.DataFrame(
        {
            "what": pd.array(t["what"], "string"),
            "even": pd.array(t["even"], "boolean"),
            "count": pd.array(t["count"], "Int64"),
            "size": pd.array(t["size"], "Float64"),
        }
    ),
    "pyarrow": pa.table,
    "polars": lambda t: pytest.importorskip("polars").DataFrame(t),
    "columns": lambda t: {name: pa.array(values) for name, values in t.items()},
    "rows": lambda t: [list(row) for row in zip(*t.values(), strict=True)],
}


@pytest.mark.parametrize("of", FRAMES.values(), ids=FRAMES)
def test_multi_task_heads_take_every_frame(of):
    size = X[:, 3]
    gapped = [None if i in (3, 8, 20) else NAMES[k] for i, k in enumerate(SPECIES)]
    table = {
        "what": gapped,
        "even": [True, None, *(SPECIES[2:] % 2 == 0).tolist()],
        "count": [None, *SPECIES[1:29].tolist(), None],
        "size": [*size[:5].tolist(), None, *size[6:].tolist()],
    }
    head = MultiTaskHead().fit(X, of(table))
    assert list(head.tasks_.values()) == ["classification"] * 3 + ["regression"]
    what, even, count, numbers = head.estimators_
    assert what.classes_.tolist() == sorted(NAMES)
    assert even.classes_.tolist() == [False, True]
    assert (count.classes_.tolist(), count.classes_.dtype) == ([0, 1, 2], np.int64)
    rows = np.arange(30) != 5
    np.testing.assert_array_equal(
        numbers.coef_, LinearProbeRegressor().fit(X[rows], size[rows]).coef_
    )
    assert head.score(X, of(table)) > 0.8


def test_what_a_task_is_does_not_depend_on_the_frame():
    many = list(range(25))
    for column in (pd.Series(many, dtype="category"), pa.array(many).dictionary_encode()):
        assert read_column("c", column).why == "categories"
    if importlib.util.find_spec("polars"):
        import polars as pl

        text = pl.Series(["a", "b"])
        assert read_column("c", text.cast(pl.Categorical)).why == "categories"
        assert read_column("c", text.cast(pl.Enum(["a", "b"]))).why == "categories"
    with pytest.raises(InputError, match=r"Column 'c' of y .* infinite one in 1 of 2"):
        read_column("c", [1.5, float("inf")], "regression")
    with pytest.raises(InputError, match="one value per row"):
        read_column("c", [["a"], ["b"]])


def test_multi_task_models_of_images_name_the_column():
    with pytest.raises(InputError, match="Column 'a' of y must hold text"):
        TransferMultiTask(cache=None).fit(["missing.jpg"] * 30, pd.DataFrame({"a": ["x", 1] * 15}))


def test_an_array_and_rows_have_numbered_columns_that_keep_their_types():
    assert {k: v.tolist() for k, v in table_of("X", np.eye(2), 2).items()} == {
        "0": [1, 0],
        "1": [0, 1],
    }
    table = table_of("X", [["a", 1], ["b", 2.5]], 2)
    assert read_column("0", table["0"]).y.tolist() == ["a", "b"]
    assert read_column("1", table["1"]).y.tolist() == [1, 2.5]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is None"),
        (np.arange(2), r"reshape\(-1, 1\)"),
        ([1, [2, 3]], "equally many"),
        ([], "equally many"),
        (5, "got int"),
        ("ab", "got str"),
        ({}, "at least one column"),
        ({"": [1, 2]}, "no empty name"),
        ({"a": [1, 2], "b": [1]}, "'b' of y .* got 1 for 2"),
        ({"a": 5}, "'a' of y .* got 0 for 2"),
    ],
)
def test_what_is_no_table_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        table_of("X", y, 2)


def test_lists_of_labels_in_rows_are_refused_by_name():
    table = table_of("X", [[["a"], ["b"]], [["a", "b"], ["a"]]], 2)
    with pytest.raises(InputError, match="Column '0' of y"):
        read_column("0", table["0"])


@pytest.mark.parametrize(
    ("column", "kind", "why"),
    [
        (["a", "b", None], "classification", "text"),
        ([True, None, False], "classification", "True and False"),
        ([1.0, 2.0, None], "classification", "2 different whole numbers"),
        ([1.0, 2.5], "regression", "fraction"),
        (range(MOST_CLASSES), "classification", "20 different"),
        (range(MOST_CLASSES + 1), "regression", "21 different"),
    ],
)
def test_the_kind_of_a_task_has_a_reason(column, kind, why):
    found = read_column("c", column)
    assert found.kind == kind
    assert why in found.why
    assert found.rows.tolist() == [i for i, value in enumerate(column) if value is not None]
    assert found.y.tolist() == [value for value in column if value is not None]


def test_a_kind_may_be_asked_for():
    assert read_column("c", [1, 2]).y.dtype == np.int64
    found = read_column("c", [1, 2, None], "regression")
    assert (found.kind, found.why, found.y.dtype) == ("regression", "as asked", np.float64)
    assert read_column("c", [1.5, 2.5], "classification").why == "as asked"
    with pytest.raises(InputError, match="Column 'c'"):
        read_column("c", ["a", "b"], "regression")
    with pytest.raises(InputError, match="no label in any row"):
        read_column("c", [None, float("nan")])


def test_errors_of_a_column_keep_their_class_and_name_it():
    with pytest.raises(ModelError, match="In column 'a' of y: too few"):
        with in_column("a"):
            raise ModelError("too few")
    with pytest.raises(KeyError, match=r"^'k'$"):
        with in_column("a"):
            raise KeyError("k")
