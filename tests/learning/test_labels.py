"""All consumers read labels from all containers alike, count missing labels and keep types."""

from __future__ import annotations

import decimal
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_iris

from featuretl import (
    DomainAdaptedClassifier,
    FineTuneClassifier,
    FineTuneRegressor,
    LinearProbeClassifier,
    LinearProbeRegressor,
    NearestMeanClassifier,
    SemiSupervisedProbeClassifier,
    SVMProbeClassifier,
    TransferClassifier,
    TransferRegressor,
    forecast_accuracy,
    metrics_report,
    rank_backbones,
    suggest_labels,
    write_report,
)
from featuretl._learning.labels import (
    all_labels,
    all_numbers,
    codes_of,
    is_gap,
    label_text,
    some_labels,
)
from featuretl.adaptation import domain_gap
from featuretl.exceptions import InputError
from featuretl.heads import AttentionPoolingClassifier, ViewsClassifier
from featuretl.ranking import log_me
from featuretl.report import ClassScoresDisplay, EmbeddingMapDisplay
from featuretl.report.findings import class_scores, confident_mistakes, label_errors

NAN = float("nan")
X, SPECIES = load_iris(return_X_y=True)
X, SPECIES = X[::5], SPECIES[::5]  # 30 rows, 10 of each species
NAMES = ["one", "two", "three"]
MISSING = [f"missing-{i}.jpg" for i in range(30)]
PROBA = np.eye(3)[SPECIES] * 0.7 + 0.1


def polars_series(values):
    return pytest.importorskip("polars").Series(values)


# Convert a list of labels, None for a missing one, to each container.
TEXT = {
    "list": list,
    "list of NaN": lambda v: [NAN if x is None else x for x in v],
    "list of NA": lambda v: [pd.NA if x is None else x for x in v],
    "list of empty text": lambda v: [x or "" for x in v],
    "tuple": tuple,
    "objects": lambda v: np.array(v, object),
    "text of numpy": lambda v: np.array([x or "" for x in v]),
    "StringDType": lambda v: np.array([x or "" for x in v], np.dtypes.StringDType()),
    "masked": lambda v: np.ma.array([x or "x" for x in v], mask=[x is None for x in v]),
    "Series": pd.Series,
    "string": lambda v: pd.Series(v, dtype="string"),
    "category": lambda v: pd.Series(v, dtype="category"),
    "Categorical": pd.Categorical,
    "Index": pd.Index,
    "arrow strings": lambda v: pd.Series(v, dtype="string[pyarrow]"),
    "Series of other rows": lambda v: pd.Series(v, index=range(len(v), 0, -1)),
    "one column": lambda v: pd.DataFrame({"y": v}),
    "polars": polars_series,
    "pyarrow": pa.array,
    "chunks": lambda v: pa.chunked_array([v[:7], v[7:]]),
    "dictionary": lambda v: pa.array(v).dictionary_encode(),
}
# Readers of labels are tested with all containers, their consumers with these.
SOME = {
    name: TEXT[name]
    for name in (
        "list of NaN",
        "list of NA",
        "objects",
        "string",
        "one column",
        "polars",
        "pyarrow",
    )
}
WHOLE = {
    "list": list,
    "list of NaN": lambda v: [NAN if x is None else x for x in v],
    "Int64": lambda v: pd.Series(v, dtype="Int64"),
    "int64 of pyarrow": lambda v: pd.Series(v, dtype="int64[pyarrow]"),
    "category": lambda v: pd.Series(pd.Categorical(v)),
    "objects": lambda v: np.array(v, object),
    "array of pandas": lambda v: pd.array(v, "Int64"),
    "polars": polars_series,
    "pyarrow": pa.array,
}
CLASSIFIERS = [
    LinearProbeClassifier(),
    SVMProbeClassifier(1.0),
    NearestMeanClassifier(),
    ViewsClassifier(),
    AttentionPoolingClassifier(),
]
SEMI = [
    SemiSupervisedProbeClassifier(method=method, random_state=0)
    for method in ("spreading", "self-training")
]
name_of = lambda value: type(value).__name__  # noqa: E731


def with_gaps(labels, gaps=(3, 8, 20)):
    return [None if i in gaps else label for i, label in enumerate(labels)]


@pytest.fixture(autouse=True)
def _one_column_is_one_column():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A column-vector y was passed")
        yield


def test_single_values_are_gaps_or_have_a_text():
    gaps = [is_gap(value) for value in (None, NAN, "", "nan", 0, False)]
    assert gaps == [True, True, True, False, False, False]
    values = (1, 1.0, np.float32(0.1), True, "007", b"a", None, "")
    expected = ["1", "1.0", "0.1", "True", "007", "a", None, None]
    assert [label_text(value) for value in values] == expected


@pytest.mark.parametrize("make", TEXT.values(), ids=TEXT)
def test_text_is_read_from_every_container(make):
    values, known = some_labels("X", make(["b", None, "a", "b", None, "a", "a", "b"]))
    assert values.ravel().tolist() == ["b", "a", "b", "a", "a", "b"]
    assert known.tolist() == [True, False, True, True, False, True, True, True]
    assert all_labels("X", make(["b", "a"] * 5)).ravel().tolist() == ["b", "a"] * 5


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_whole_numbers_stay_whole(make):
    values, known = some_labels("X", make([3, None, 1]))
    assert (values.tolist(), values.dtype, known.tolist()) == (
        [3, 1],
        np.int64,
        [True, False, True],
    )


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        ([True, None, False], bool),
        (pd.Series([True, None], dtype="boolean"), bool),
        (pa.array([True, None]), bool),
        (pd.Series([1.5, None], dtype="Float64"), np.float64),
        ([decimal.Decimal("1.5"), 2, None], np.float64),
        ([np.int8(1), 2, None], np.int64),
        ([torch.tensor(1), torch.tensor(0)], np.int64),
        (torch.tensor([1, 0]), np.int64),
        ([pa.scalar(1), pa.scalar(None, pa.int64())], np.int64),
        (range(4), np.int64),
        (iter("ab"), "<U1"),
        (np.array(["a"], object), object),
        (
            pd.Series(pd.to_datetime(["2026-01-01", None])),
            str(pd.to_datetime(["2026-01-01"]).dtype),
        ),
        ([], "<U1"),
    ],
)
def test_other_types_stay_what_they_are(y, dtype):
    assert some_labels("X", y).values.dtype == dtype


@pytest.mark.parametrize(
    ("y", "rows"),
    [
        ([["a"], None, ["b", "c"]], [{"a"}, {"b", "c"}]),
        ([("a", "b"), ("a", "c"), NAN], [{"a", "b"}, {"a", "c"}]),
        ([{1}, set(), frozenset({2})], [{1}, set(), {2}]),
        ([["a"], ["b", None]], [{"a"}]),
        (pd.Series([np.array(["a"]), None, np.array(["b", "c"])]), [{"a"}, {"b", "c"}]),
        (pa.array([["a"], None, ["b", "c"]]), [{"a"}, {"b", "c"}]),
    ],
)
def test_lists_of_labels_are_sets(y, rows):
    assert some_labels("X", y).values.tolist() == rows


@pytest.mark.parametrize("of", [pd.DataFrame, pa.table, "polars"])
def test_frames_are_indicators(of):
    of = pytest.importorskip("polars").DataFrame if of == "polars" else of
    values, known = some_labels("X", of({"a": [1, 0, None], "b": [True, None, True]}))
    assert (values.tolist(), known.tolist()) == ([[1, 1]], [True, False, False])
    with pytest.raises(InputError, match="columns of numbers and text"):
        some_labels("X", of({"a": ["x", "y"], "b": [1, 2]}))


@pytest.mark.parametrize(
    "y",
    [
        ["a", 1], ["a", True], [True, 2], [b"a"], np.array([b"a"]), [object()], ["a", ["b"]],
        [["a", 1], ["b"]], "text", b"bytes", {"a", "b"}, {"a": 1}, 5, np.array(5), object(), None,
        pd.DataFrame({"a": [1]})[[]], pa.table({"a": [1], "b": [2]}).rename_columns(["a", "a"]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_column_of_labels_is_one_sentence(y):
    with pytest.raises(InputError):
        some_labels("X", y)


def test_minus_one_is_a_gap_where_it_is_asked_for():
    for y in (["a", -1], [1, -1.0], np.array([1, -1]), pd.Series([1, -1], dtype="Int64")):
        assert some_labels("X", y, minus_one=True).known.tolist() == [True, False]
    assert some_labels("X", ["-1", "a"], minus_one=True).known.all()  # a name
    with pytest.raises(InputError, match="int and str"):
        some_labels("X", ["a", 0, -1], minus_one=True)


def test_gaps_of_which_numpy_made_text():
    assert some_labels("X", np.array(["one", NAN])).known.tolist() == [True, False]
    for y in (np.array(["one", -1]), np.array(["one", -1.0])):
        assert some_labels("X", y, minus_one=True).known.tolist() == [True, False]
        assert some_labels("X", y).known.all()
    for names in (np.array(["nan", "no"]), np.array([-1, 1]).astype(str), np.array(["-1", "a"])):
        assert some_labels("X", names, minus_one=True).known.all()


LABEL = st.none() | st.just(NAN) | st.just("") | st.just(pd.NA)


@given(
    st.lists(LABEL | st.text("abc", min_size=1), min_size=1)
    | st.lists(LABEL | st.integers(-9, 9), min_size=1)
    | st.lists(LABEL | st.booleans(), min_size=1)
)
def test_containers_agree(values):
    """A list, an object array, a Series and a pyarrow array give the same labels."""
    expected = [value for value in values if not is_gap(value)]
    plain = [None if is_gap(value) else value for value in values]
    for y in (values, np.array(values, object), pd.Series(values, dtype=object), pa.array(plain)):
        found, known = some_labels("X", y)
        assert found.tolist() == expected
        assert [type(value) for value in found.tolist()] == [type(value) for value in expected]
        assert known.tolist() == [not is_gap(value) for value in values]


@given(
    st.lists(st.integers(-5, 5) | st.floats(-5, 5) | st.booleans() | st.text("01.tT", min_size=1))
)
def test_a_class_is_found_by_its_own_text_and_value(values):
    for value in values:
        for classes in (np.unique([value]), np.array([label_text(value)])):
            for label in (value, label_text(value)):
                assert codes_of("X", all_labels("X", [label]), classes).tolist() == [0]


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([1, 0], ["0", "1"], [1, 0]),
        ([1.0, 0.0], ["0", "1"], [1, 0]),
        (["1.0", "0"], ["0", "1"], [1, 0]),
        ([1, 0], ["0.0", "1.0"], [1, 0]),
        (["1"], [0.0, 1.0], [1]),
        ([1, 2.0], [1.0, 2.0], [0, 1]),
        ([1.0, "x"][:1], [0, 1], [1]),
        ([True, False], ["False", "True"], [1, 0]),
        (["True", "false"], [False, True], [1, 0]),
        ([1, 0], [False, True], [1, 0]),
        (["1", "1.0"], ["1", "1.0"], [0, 1]),
        ([1, 1.0][:1], ["1", "1.0"], [0]),
        ([0.5], ["0.5"], [0]),
        (["1"], ["1.0", "1."], None),  # ambiguous
        (["7"], ["007"], None),
        ([True], ["1"], None),
        (["a"], ["A"], None),
        (["nan"], ["b"], None),
    ],
)
def test_which_class_a_label_means(labels, classes, codes):
    labels, classes = all_labels("X", labels), np.array(classes)
    if codes is None:
        with pytest.raises(InputError, match="1 classes that the model"):
            codes_of("X", labels, classes)
    else:
        assert codes_of("X", labels, classes).tolist() == codes


# --- consumers ---


@pytest.mark.parametrize("head", CLASSIFIERS, ids=name_of)
@pytest.mark.parametrize("make", SOME.values(), ids=SOME)
def test_classifiers_take_every_container_and_count_gaps(make, head):
    names = [NAMES[k] for k in SPECIES]
    assert head.fit(X, make(names)).classes_.tolist() == sorted(NAMES)
    assert head.score(X, make(names)) > 0.5
    for call in (head.fit, head.score):
        with pytest.raises(InputError, match=rf"^y of {name_of(head)} .* 3 of 30 rows"):
            call(X, make(with_gaps(names)))


@pytest.mark.parametrize("head", CLASSIFIERS, ids=name_of)
@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_predictions_are_whole_numbers(make, head):
    y = make(SPECIES.tolist())
    assert head.fit(X, y).predict(X).dtype == head.classes_.dtype == np.int64
    assert head.score(X, y) == (head.predict(X) == SPECIES).mean()
    with pytest.raises(InputError, match="3 of 30 rows"):
        head.fit(X, make(with_gaps(SPECIES.tolist())))


@pytest.mark.parametrize("head", SEMI, ids=name_of)
@pytest.mark.parametrize("make", SOME.values(), ids=SOME)
def test_semi_supervised_heads_take_every_gap(make, head):
    gaps = np.flatnonzero(np.arange(30) % 3)
    marked = np.where(np.isin(np.arange(30), gaps), -1, SPECIES)
    expected = head.fit(X, marked).predict_proba(X)
    order = np.argsort(NAMES)
    head.fit(X, make(with_gaps([NAMES[k] for k in SPECIES], gaps)))
    assert head.classes_.tolist() == sorted(NAMES)
    np.testing.assert_allclose(head.predict_proba(X), expected[:, order], atol=2e-3)


@pytest.mark.parametrize("gap", [None, NAN, pd.NA, pd.NaT, "", -1, -1.0])
def test_hidden_rows_are_found_alike_from_lists_and_object_arrays(gap):
    """Once, the score was 0.000 with a list and 0.986 with an object array."""
    digits, truth = load_digits(n_class=3, return_X_y=True)
    names = [NAMES[k] for k in truth]
    y = [name if i % 20 == 0 else gap for i, name in enumerate(names)]
    hidden = np.arange(len(y)) % 20 > 0
    accuracy = []
    for labels in (y, np.array(y, object)):
        head = SemiSupervisedProbeClassifier(random_state=0).fit(digits, labels)
        assert head.classes_.tolist() == sorted(NAMES)
        accuracy.append((head.transduction_ == np.array(names))[hidden].mean())
    assert accuracy[0] == accuracy[1] > 0.95


@pytest.mark.parametrize("make", [list, tuple, pd.Series, pa.array, polars_series])
@pytest.mark.parametrize(
    "fit",
    [
        LinearProbeRegressor().fit,
        lambda X, y: FineTuneRegressor("test_resnet", weights="random").fit(MISSING, y),
        lambda X, y: TransferRegressor("linear", cache=None).fit(MISSING, y),
        lambda X, y: log_me(X, y, task="regression"),
        lambda X, y: metrics_report(y, X[:, 0], task="regression"),
        lambda X, y: metrics_report(X[:, 0], y, task="regression"),
    ],
)
def test_numbers_with_gaps_and_infinities_are_one_sentence(fit, make):
    y = [None, 1.0, NAN, float("inf"), *np.arange(26.0).tolist()]
    with pytest.raises(InputError, match="2 and an infinite one in 1 of 30"):
        fit(X, make(y))


def test_numbers_are_read_from_every_container():
    y = X[:, 3]
    expected = LinearProbeRegressor().fit(X[:, :3], y).coef_
    for make in (list, pa.array, polars_series, lambda v: pd.Series(v, dtype="Float64")):
        np.testing.assert_array_equal(LinearProbeRegressor().fit(X[:, :3], make(y)).coef_, expected)
    for y in (["a", "b"], ["a", 1], [object()], pd.to_datetime(["2026-01-01"]), [[["x"]]]):
        with pytest.raises(InputError):
            all_numbers("X", y)


GAPPED = with_gaps([NAMES[k] for k in SPECIES])
READERS = {
    "log_me": lambda y: log_me(X, y),
    "forecast_accuracy": lambda y: (
        forecast_accuracy(
            X, y, estimator=NearestMeanClassifier(), n_repeats=2, random_state=0
        ).n_labels
    ),
    "domain_gap": lambda y: domain_gap(X, X, y).auc,
    "DomainAdaptedClassifier": lambda y: DomainAdaptedClassifier().fit(X, y, X).method_,
    "metrics_report": lambda y: metrics_report(y, GOOD, n_bootstrap=0).scores,
    "y_pred": lambda y: metrics_report(GOOD, y, n_bootstrap=0).scores,
    "class_scores": lambda y: class_scores(y, GOOD).values.tolist(),
    "label_errors": lambda y: label_errors(y, PROBA, NAMES).values.tolist(),
    "confident_mistakes": lambda y: confident_mistakes(y, PROBA, NAMES).values.tolist(),
    "ClassScoresDisplay": lambda y: ClassScoresDisplay.from_predictions(y, GOOD) and None,
}
GOOD = [NAMES[k] for k in SPECIES]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("make", SOME.values(), ids=SOME)
def test_functions_take_every_container_and_count_gaps(make, read):
    if make is TEXT["list"] or read not in (
        READERS["ClassScoresDisplay"],
        READERS["DomainAdaptedClassifier"],
    ):
        assert read(make(GOOD)) == read(GOOD)
    with pytest.raises(InputError, match="3 of 30 rows, such as row 3"):
        read(make(GAPPED))


def test_infinite_labels_are_counted():
    y = np.where(np.arange(30) < 2, np.inf, SPECIES)
    for read in (LinearProbeClassifier().fit, log_me, lambda X, y: metrics_report(y, SPECIES)):
        with pytest.raises(InputError, match="infinite in 2 of 30 rows"):
            read(X, y)


@pytest.mark.parametrize(
    "model",
    [TransferClassifier("linear", cache=None), FineTuneClassifier("test_resnet", weights="random")],
    ids=name_of,
)
def test_classifiers_of_images_count_gaps_before_they_read_any(model):
    for y in (GAPPED, pd.Series(GAPPED, dtype="string"), pa.array(GAPPED)):
        with pytest.raises(InputError, match=rf"y of {name_of(model)} .* 3 of 30 rows"):
            model.fit(MISSING, y)
        with pytest.raises(InputError, match=r"y of rank_backbones .* 3 of 30"):
            rank_backbones(MISSING, y, ["test_resnet"])


def test_reports_count_gaps(tmp_path):
    images = [np.zeros((4, 4, 3), np.uint8)] * 30
    with pytest.raises(InputError, match=r"y of write_report .* 3 of 30"):
        write_report(X, images, GAPPED, tmp_path / "r.html")
    with pytest.raises(InputError, match="none in 1 of 30 rows"):
        write_report(X, images, [None, *range(29)], tmp_path / "r.html", task="regression")


def test_suggest_labels_takes_unlabelled_rows():
    known = SPECIES.astype(object)
    known[np.arange(30) % 10 > 6] = None
    rows = np.flatnonzero([label is not None for label in known])
    expected = suggest_labels(X, 4, labelled=rows, y=SPECIES[rows], random_state=0).tolist()
    marked = np.where(np.isin(np.arange(30), rows), SPECIES, -1)
    for y in (known, list(known), pd.Series(known, dtype="Int64"), pa.array(list(known)), marked):
        assert suggest_labels(X, 4, y=y, random_state=0).tolist() == expected
    with_one_gap = suggest_labels(X, 30, labelled=[0, 1], y=["a", None])
    assert sorted(with_one_gap) == list(range(1, 30))
    signs = suggest_labels(
        X, 30, labelled=[0, 1], y=[-1, 1]
    )  # -1 is a class if `labelled` is passed
    assert sorted(signs) == list(range(2, 30))


def test_a_map_shows_images_without_a_label_grey():
    display = EmbeddingMapDisplay(X[:, :2], GAPPED).plot()
    assert [len(part.get_offsets()) for part in display.scatters_] == [3, 8, 9, 10]
    numbers = [None, *X[1:, 0]]
    parts = EmbeddingMapDisplay(X[:, :2], numbers).plot().scatters_
    assert [len(part.get_offsets()) for part in parts] == [1, 29]
    assert len(EmbeddingMapDisplay(X[:, :2]).plot().scatters_) == 1


def test_a_million_labels_of_an_array_are_not_looped_over():
    """No Python loop visits the labels of a typed array."""
    import sys

    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    y = np.arange(10**6)
    for values in (y, y.astype(float), y.astype(str), pd.Series(y, dtype="Int64"), pa.array(y)):
        before = sys.gettrace()
        sys.settrace(count)
        try:
            some_labels("X", values)
        finally:
            sys.settrace(before)
    assert lines < 5000
