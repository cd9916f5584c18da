"""evaluate_model: labels of any type mean their class, and failures and mistakes are named."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer

from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    MultiTaskHead,
    evaluate_model,
    metrics_report,
    predict_to_file,
)
from featuretl.exceptions import InputError

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_scores_are_those_of_the_predictions(tiny, photos, labels):
    report = evaluate_model(tiny, photos, labels, n_bootstrap=20)
    assert report.scores["accuracy"] == tiny.score(photos, labels)
    assert set(report.per_class) == {"flower", "temple"}
    assert report.intervals["log_loss"][0] <= report.scores["log_loss"]
    assert report.failures == []


def test_groups_widen_the_intervals_of_every_task(tiny, photos, labels, with_bad, shared_cache):
    y = [*labels[:20], *labels[:4]]  # four mistakes
    series = ["a"] * 6 + ["b"] * 6 + ["c"] * 6 + ["d"] * 6
    alone = evaluate_model(tiny, photos, y).intervals["accuracy"]
    together = evaluate_model(tiny, photos, y, groups=series).intervals["accuracy"]
    assert together[1] - together[0] > 1.1 * (alone[1] - alone[0])
    with pytest.raises(InputError, match="groups must have one entry"):
        evaluate_model(tiny, photos, y, groups=series[:5])
    # Unreadable images are removed together with their groups.
    bad = [*labels[:3], "flower", *labels[3:19], "temple", *labels[19:]]
    named = [*range(3), 99, *range(3, 19), 98, *range(19, 24)]
    report = evaluate_model(tiny, with_bad, bad, groups=named)
    assert report.intervals == evaluate_model(tiny, photos, labels).intervals
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    tasks = {"what": labels, "light": np.linspace(0, 1, 24)}
    model = make_pipeline(embedder, MultiTaskHead()).fit(photos, tasks)
    truth = {"what": [None, *y[1:]], "light": np.linspace(0, 1, 24) ** 2}
    several = [evaluate_model(model, photos, truth, groups=of).tasks for of in (None, series)]
    for task, score in (("what", "accuracy"), ("light", "mean_absolute_error")):
        assert several[0][task].intervals[score] != several[1][task].intervals[score]


def test_bad_images_are_named_and_not_scored(tiny, with_bad, labels, small_batches):
    y = [*labels[:3], "flower", *labels[3:19], "temple", *labels[19:]]
    done = []
    report = evaluate_model(tiny, with_bad, y, progress=done.append)
    assert report.n == 24
    assert [failure.index for failure in report.failures] == [3, 20]
    assert "\n" not in report.failures[0].name
    assert done == [5, 10, 15, 20, 25, 26]


def test_labels_as_text_are_understood(photos, labels, shared_cache):
    codes = np.unique(labels, return_inverse=True)[1]
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, codes)
    texts = [str(code) for code in codes]
    assert (
        evaluate_model(model, photos, texts).scores == evaluate_model(model, photos, codes).scores
    )
    with pytest.raises(InputError, match=r"1 classes .*such as '7'"):
        evaluate_model(model, photos, ["7", *texts[1:]])


def test_a_regressor_is_evaluated(photos, shared_cache):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    y = np.arange(24.0)  # whole numbers, but no classes
    report = evaluate_model(make_pipeline(embedder, Ridge()).fit(photos, y), photos, y)
    assert report.task == "regression"
    assert report.scores["r2"] > 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinearProbeClassifier(), "got a LinearProbeClassifier that does not"),
        (ImageEmbedder(), "got a ImageEmbedder that does not"),
    ],
)
def test_a_model_must_take_images(model, message, photos, tmp_path):
    with pytest.raises(InputError, match=message):
        evaluate_model(model, photos, photos)
    with pytest.raises(InputError, match=message):
        predict_to_file(model, photos, tmp_path / "out.csv")


HEADS_OF_TAGS = [
    LinearProbeClassifier(),
    MLPClassifier((9,), solver="lbfgs", random_state=0),
    OneVsRestClassifier(LogisticRegression()),
]


@pytest.mark.parametrize("head", HEADS_OF_TAGS, ids=lambda head: type(head).__name__)
def test_several_labels_per_image_are_evaluated(head, photos, tagged, shared_cache):
    indicator = MultiLabelBinarizer().fit_transform(tagged)
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    is_ours = isinstance(head, LinearProbeClassifier)
    model = make_pipeline(embedder, clone(head)).fit(photos, tagged if is_ours else indicator)
    expected = metrics_report(
        indicator, model.predict(photos), model.predict_proba(photos), labels=model.classes_, n_bootstrap=20,
    )  # fmt: skip
    for y in [indicator, *([tagged] if is_ours else [])]:
        report = evaluate_model(model, photos, y, n_bootstrap=20)
        assert (report.task, report.scores) == ("multilabel", expected.scores)
        assert report.intervals == expected.intervals


def test_mistaken_labels_are_named(tiny, photos, labels, tagged, shared_cache):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, tagged)
    with pytest.raises(InputError, match=r"1 classes .*such as 'wasp'"):
        evaluate_model(model, photos, [["wasp"], *tagged[1:]])
    for y in (labels, np.zeros((24, 2)), np.full((24, 3), 7)):
        with pytest.raises(InputError, match="a list of labels"):
            evaluate_model(model, photos, y)
    with pytest.raises(InputError, match="one class per image"):
        evaluate_model(tiny, photos, tagged)
    lists = make_pipeline(embedder, KNeighborsClassifier(3))
    lists.fit(photos, MultiLabelBinarizer().fit_transform(tagged))
    with pytest.raises(InputError, match="KNeighborsClassifier is a multi-output classifier"):
        evaluate_model(lists, photos, tagged)


def _fitted(photos, y, cache):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=cache)
    return make_pipeline(embedder, LinearProbeClassifier()).fit(photos, y)


@pytest.mark.parametrize(
    "make",
    [
        list,
        np.array,
        lambda codes: np.array(codes, float),
        lambda codes: [float(code) for code in codes],
        lambda codes: [str(code) for code in codes],
        lambda codes: [f"{code}.0" for code in codes],
        lambda codes: [bool(code) for code in codes],
        lambda codes: np.array(codes, object),
        lambda codes: pd.Series(codes, dtype="Int64"),
        lambda codes: pd.Series(codes, dtype="Float64"),
        lambda codes: pd.Series(codes, dtype="category"),
        lambda codes: pd.DataFrame({"y": codes}),
        lambda codes: pa.array(codes),
        lambda codes: pytest.importorskip("polars").Series(codes),
    ],
)
def test_labels_of_any_type_mean_the_same_class(make, photos, labels, shared_cache):
    """A model trained on 0 and 1, as numbers or text, accepts every representation of them."""
    codes = [int(label == "temple") for label in labels]
    for trained in (codes, [float(code) for code in codes], [str(code) for code in codes]):
        model = _fitted(photos, trained, shared_cache)
        expected = model.score(photos, trained)
        y = make(codes)
        if isinstance(trained[0], str) and isinstance(np.asarray(y).ravel()[0], np.bool_):
            with pytest.raises(InputError, match="2 classes"):
                evaluate_model(model, photos, y)
            continue
        assert evaluate_model(model, photos, y, n_bootstrap=0).scores["accuracy"] == expected


@pytest.mark.parametrize("trained", [bool, str, lambda truth: str(truth).lower()])
@pytest.mark.parametrize(
    "make",
    [
        list,
        lambda truth: [str(value) for value in truth],
        lambda truth: [str(value).lower() for value in truth],
        lambda truth: pd.Series(truth, dtype="boolean"),
        lambda truth: pa.array(truth),
    ],
)
def test_truth_values_and_their_names_are_one_class(trained, make, photos, labels, shared_cache):
    truth = [label == "temple" for label in labels]
    y = [trained(value) for value in truth]
    model = _fitted(photos, y, shared_cache)
    found = evaluate_model(model, photos, make(truth), n_bootstrap=0).scores["accuracy"]
    assert found == model.score(photos, y)


def test_what_fit_takes_evaluate_model_takes(photos, labels, shared_cache):
    codes = pd.Series([int(label == "temple") for label in labels])
    for y in (codes.astype("Int64"), codes.astype("boolean"), codes.astype("category")):
        model = _fitted(photos, y, shared_cache)
        found = evaluate_model(model, photos, y, n_bootstrap=0).scores["accuracy"]
        assert found == model.score(photos, y) > 0.5


def test_images_without_a_label_are_counted(tiny, photos, labels, shared_cache):
    for gap in (None, float("nan"), "", pd.NA):
        y = [gap, *labels[1:-1], gap]
        with pytest.raises(InputError, match="y of evaluate_model has no label in 2 of 24 rows"):
            evaluate_model(tiny, photos, y)
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, Ridge()).fit(photos, np.arange(24.0))
    with pytest.raises(InputError, match="none in 1 and an infinite one in 1 of 24 rows"):
        evaluate_model(model, photos, [None, float("inf"), *range(22)])


def test_several_labels_are_taken_as_numbers_names_or_an_indicator(photos, shared_cache):
    rows = [[i % 2, 2] if i % 3 else [i % 2] for i in range(24)]
    indicator = np.array([[label in row for label in range(3)] for row in rows])
    model = _fitted(photos, [[str(label) for label in row] for row in rows], shared_cache)
    expected = evaluate_model(model, photos, indicator, n_bootstrap=0).scores
    columns = dict(zip("012", indicator.T, strict=True))
    for y in (
        rows,
        [{float(label) for label in row} for row in rows],
        pd.Series(rows),
        pa.array(rows),
        pd.DataFrame(columns).astype("boolean"),
        pd.DataFrame(columns).astype("Int64"),
        pa.table(columns),
        indicator.astype(float),
    ):
        assert evaluate_model(model, photos, y, n_bootstrap=0).scores == expected
    with pytest.raises(InputError, match=r"1 classes .*such as 7"):
        evaluate_model(model, photos, [[7], *rows[1:]])
    with pytest.raises(InputError, match="no label in 1 of 24 rows"):
        evaluate_model(model, photos, [None, *rows[1:]])


@pytest.mark.parametrize("of", ["polars", pd.DataFrame, pa.table, dict])
def test_tasks_are_taken_from_every_frame(of, photos, labels, shared_cache):
    of = pytest.importorskip("polars").DataFrame if of == "polars" else of
    codes = [int(label == "temple") for label in labels]
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    table = of({"what": [None, *labels[1:]], "code": codes, "light": np.arange(24) / 7})
    model = make_pipeline(embedder, MultiTaskHead()).fit(photos, table)
    other = of({"what": [*labels[:-1], ""], "code": [None, *map(float, codes[1:])]})
    found = evaluate_model(model, photos, other, n_bootstrap=0).tasks
    assert [found[name].n for name in ("what", "code")] == [23, 23]
    assert [found[name].scores["accuracy"] > 0.5 for name in ("what", "code")] == [True, True]
