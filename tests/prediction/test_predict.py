"""evaluate_model and predict_to_file: failures are named, killed runs resume, formats agree."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    MultiTaskHead,
    TransferClassifier,
    evaluate_model,
    load_model,
    metrics_report,
    predict_to_file,
    save_model,
)
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.prediction import files as files_module
from featuretl.prediction import predict as prediction_module
from featuretl.prediction.parts import Parts
from featuretl.prediction.predict import predict_images, use_machine

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

BAD_NAME = "bad\n\x1b[31m,\u202e.jpg"


@pytest.fixture(scope="module")
def labels(photos):
    return [path.split("/")[-2] for path in photos]


@pytest.fixture(scope="module")
def tiny(photos, labels, shared_cache):
    """A pipeline with a tiny network."""
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    return make_pipeline(embedder, LinearProbeClassifier()).fit(photos, labels)


@pytest.fixture
def small_batches(monkeypatch):
    for module in (prediction_module, files_module):
        monkeypatch.setattr(module, "BATCH", 5)


@pytest.fixture
def with_bad(photos, tmp_path):
    """The photographs with two unreadable ones at positions 3 and 20."""
    bad = tmp_path / BAD_NAME
    bad.write_text("<html>404</html>")
    return [*photos[:3], str(bad), *photos[3:19], str(tmp_path / "missing.jpg"), *photos[19:]]


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
    with pytest.raises(InputError, match="1 classes that the model does not know, such as '7'"):
        evaluate_model(model, photos, ["7", *texts[1:]])


def test_a_regressor_is_evaluated(photos, shared_cache):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    y = np.arange(24.0)  # whole numbers, but no classes
    report = evaluate_model(make_pipeline(embedder, Ridge()).fit(photos, y), photos, y)
    assert report.task == "regression"
    assert report.scores["r2"] > 0


def test_a_tuned_network_names_bad_images_too(photos, labels, with_bad):
    model = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, learning_rate=0.003, epochs=1,
        augment="none", random_state=0,
    ).fit(photos, labels)  # fmt: skip
    found = predict_images(model, with_bad)
    assert np.flatnonzero(~found.ok).tolist() == [3, 20]
    assert [failure.index for failure in found.failures] == [3, 20]
    assert found.failures[1].message.startswith("No such file")
    np.testing.assert_array_equal(found.predicted, model.predict(photos))
    np.testing.assert_allclose(found.proba, model.predict_proba(photos), atol=1e-6)
    nothing = predict_images(model, with_bad[3:4])
    assert nothing.proba.shape == (0, 2)


def rows_of(path):
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_row_per_image_in_order(ending, tiny, photos, with_bad, tmp_path, small_batches):
    path = tmp_path / f"out.{ending}"
    written = predict_to_file(tiny, with_bad, path, top=9)
    assert (written.images, written.failed, written.resumed, written.abstained) == (26, 2, 0, 0)
    rows = rows_of(path)
    assert [row["path"] for row in rows] == with_bad
    good = [row for row in rows if not row["error"]]
    assert [row["prediction"] for row in good] == tiny.predict(photos).tolist()
    proba = np.sort(tiny.predict_proba(photos), axis=1)[:, ::-1]
    found = [[float(row[f"probability_{rank}"]) for rank in (1, 2)] for row in good]
    np.testing.assert_allclose(found, proba, atol=1e-6)
    assert rows[3]["prediction"] is None
    assert "not an image" in rows[3]["error"]
    assert not list(tmp_path.glob("*.partial"))


def test_it_abstains_below_a_threshold(tiny, photos, tmp_path):
    highest = tiny.predict_proba(photos).max(axis=1)
    threshold = float(np.median(highest))
    path = tmp_path / "out.jsonl"
    written = predict_to_file(tiny, photos, path, threshold=threshold)
    silent = [row["prediction"] is None for row in rows_of(path)]
    assert written.abstained == sum(silent)
    assert 0 < sum(silent) < 24
    assert silent == [row["probability_1"] < threshold for row in rows_of(path)]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_killed_run_goes_on(ending, tiny, photos, tmp_path, monkeypatch, small_batches):
    path, whole = tmp_path / f"out.{ending}", tmp_path / f"whole.{ending}"
    predict_to_file(tiny, photos, whole)
    path.write_text("an older file")
    predicted = []
    predict = prediction_module.predict_images

    def until_killed(model, images, **options):
        if len(predicted) == 3:
            raise KeyboardInterrupt
        predicted.append(len(images))
        return predict(model, images, **options)

    monkeypatch.setattr(prediction_module, "predict_images", until_killed)
    with pytest.raises(KeyboardInterrupt):
        predict_to_file(tiny, photos, path)
    assert path.read_text() == "an older file"
    predicted.clear()
    torn = tmp_path / f"out.{ending}.partial" / "00000003-0.parquet.0a1b2c3d.partial"
    torn.write_bytes(b"PAR1")  # left by a killed write
    assert predict_to_file(tiny, photos, path).resumed == 15
    assert predicted == [5, 4]
    assert path.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"out.{ending}.partial").exists()


KILLED_IN_THE_THIRD_BATCH = """if True:
    import os, signal, sys
    from featuretl import load_model, predict_to_file
    from featuretl.prediction import files, predict as module
    module.BATCH = files.BATCH = 5
    predict, calls = module.predict_images, []
    def until_killed(model, images, **options):
        calls.append(len(images))
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return predict(model, images, **options)
    module.predict_images = until_killed
    predict_to_file(load_model(sys.argv[1]), sys.argv[3:], sys.argv[2])
"""


def test_after_a_real_kill_it_goes_on(tiny, photos, tmp_path, small_batches):
    save_model(tiny, tmp_path / "m.featuretl")
    path = tmp_path / "out.csv"
    arguments = [str(tmp_path / "m.featuretl"), str(path), *photos]
    done = subprocess.run([sys.executable, "-c", KILLED_IN_THE_THIRD_BATCH, *arguments])
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    model = load_model(tmp_path / "m.featuretl")
    assert predict_to_file(model, photos, path).resumed == 10
    assert [row["path"] for row in rows_of(path)] == photos


def test_what_another_run_left_is_not_gone_on_with(tiny, photos, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", full)
        with pytest.raises(StoreError, match=r"No space left on device.*run it again to resume"):
            predict_to_file(tiny, photos, path)
    for images, options in [(photos[1:], {}), (photos, {"top": 2}), (photos, {"threshold": 0.5})]:
        with pytest.raises(InputError, match="predictions of another model"):
            predict_to_file(tiny, images, path, **options)
    assert predict_to_file(tiny, photos, path).images == 24


def test_a_second_run_into_the_same_file_is_refused(tiny, photos, tmp_path, monkeypatch):
    path, refused = tmp_path / "out.csv", []
    predict = prediction_module.predict_images

    def beside_another(model, images, **options):
        with pytest.raises(InputError) as caught:
            predict_to_file(tiny, photos, path)
        refused.append(str(caught.value))
        return predict(model, images, **options)

    monkeypatch.setattr(prediction_module, "predict_images", beside_another)
    predict_to_file(tiny, photos, path)
    assert refused == [
        f"Another run is predicting into '{path}'; wait for it, or choose another output."
    ]
    assert len(rows_of(path)) == 24
    assert sorted(entry.name for entry in tmp_path.glob("out*")) == ["out.csv"]


SECOND_PROCESS = """if True:
    import sys
    from featuretl import load_model, predict_to_file
    from featuretl.exceptions import InputError
    try:
        predict_to_file(load_model(sys.argv[1]), sys.argv[3:], sys.argv[2])
    except InputError as error:
        print(error)
"""


def test_another_process_is_kept_out_as_long_as_one_lives(tiny, photos, tmp_path):
    save_model(tiny, tmp_path / "m.featuretl")
    path = tmp_path / "out.csv"
    command = [sys.executable, "-c", SECOND_PROCESS, tmp_path / "m.featuretl", path, *photos]
    with Parts(path, "of a run that will be killed"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("Another run is predicting into")
    with pytest.raises(
        InputError, match="predictions of another model"
    ):  # its lock is released, its batches remain
        predict_to_file(tiny, photos, path)


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_only_what_changed_is_predicted_again(
    kind, tiny, photos, tmp_path, monkeypatch, small_batches
):
    files = [tmp_path / f"{i}.jpg" for i in range(15)]
    for file, photo in zip(files, photos, strict=False):
        file.write_bytes(Path(photo).read_bytes())
    images = [file.read_bytes() for file in files] if kind == "bytes" else files
    path, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "_merge", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_to_file(tiny, images, path)
    files[7].write_bytes(Path(photos[-1]).read_bytes())
    if kind == "bytes":
        images = [file.read_bytes() for file in files]
    assert predict_to_file(tiny, images, path).resumed == 10
    predict_to_file(tiny, images, whole)
    assert rows_of(path) == rows_of(whole)
    assert rows_of(path)[7]["prediction"] == "temple"


def test_numbers_and_classes_without_probabilities(photos, labels, shared_cache, tmp_path):
    path = tmp_path / "out.jsonl"
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, Ridge()).fit(photos, np.arange(24.0))
    predict_to_file(model, photos, path)
    found = [row["prediction"] for row in rows_of(path)]
    np.testing.assert_allclose(found, model.predict(photos), atol=1e-4)
    silent = make_pipeline(embedder, LinearSVC()).fit(photos, labels)
    predict_to_file(silent, photos, path)
    assert set(rows_of(path)[0]) == {"path", "prediction", "error"}
    with pytest.raises(ParameterError, match="this Pipeline does not predict"):
        predict_to_file(silent, photos, path, top=2)
    both = make_pipeline(embedder, Ridge()).fit(photos, np.c_[np.arange(24), np.arange(24)])
    with pytest.raises(InputError, match="several numbers per image"):
        predict_to_file(both, photos, path)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "'top' parameter"),
        ({"threshold": 1.5}, "'threshold' parameter"),
        ({"threshold": "x"}, "'threshold' parameter"),
        ({"threshold": float("nan")}, "'threshold' parameter"),
    ],
)
def test_parameters_are_checked(options, message, tiny, photos, tmp_path):
    with pytest.raises(ParameterError, match=message):
        predict_to_file(tiny, photos, tmp_path / "out.csv", **options)
    with pytest.raises(ParameterError, match=r"must end in \.csv, \.parquet, \.jsonl"):
        predict_to_file(tiny, photos, tmp_path / "out.xlsx")


@pytest.fixture(scope="module")
def tagged(photos, labels):
    """Label lists: the class, and "upper" for crops of the upper half; the first one is empty."""
    tags = [[label] + ["upper"] * (i % 12 < 6) for i, label in enumerate(labels)]
    return [[], *tags[1:]]


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
    with pytest.raises(InputError, match="1 classes that the model does not know, such as 'wasp'"):
        evaluate_model(model, photos, [["wasp"], *tagged[1:]])
    for y in (labels, np.zeros((24, 2)), np.full((24, 3), 7)):
        with pytest.raises(InputError, match="y must be a list of labels per image"):
            evaluate_model(model, photos, y)
    with pytest.raises(InputError, match="one class per image, but y has several"):
        evaluate_model(tiny, photos, tagged)
    lists = make_pipeline(embedder, KNeighborsClassifier(3))
    lists.fit(photos, MultiLabelBinarizer().fit_transform(tagged))
    with pytest.raises(InputError, match="KNeighborsClassifier is a multi-output classifier"):
        evaluate_model(lists, photos, tagged)


def test_several_labels_per_image_have_a_column_each(
    photos, tagged, with_bad, shared_cache, tmp_path
):
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    model = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, tagged)
    path, proba = tmp_path / "out.jsonl", model.predict_proba(photos)
    for threshold in (None, 0.9):
        written = predict_to_file(model, with_bad, path, threshold=threshold)
        rows = [row for row in rows_of(path) if not row["error"]]
        found = [[row[f"probability_{name}"] for name in model.classes_] for row in rows]
        np.testing.assert_allclose(found, proba, atol=1e-6)
        chosen = np.array(found) >= (threshold or 0.5)
        expected = [";".join(model.classes_[row]) or None for row in chosen]
        assert [row["prediction"] for row in rows] == expected
        assert written.abstained == expected.count(None)
    assert written.failed == 2
    with pytest.raises(ParameterError, match="got 2"):
        predict_to_file(model, photos, path, top=2)


def test_a_model_is_told_about_the_machine(photos, labels, tmp_path):
    chosen = TransferClassifier(
        "linear", backbone="test_resnet", weights="random", cache=None, cv=2, test_size=None
    )
    model = chosen.fit(photos, labels)
    use_machine(model, cache=tmp_path / "own", n_jobs=1, device="cpu")
    embedder = model.estimator_[0]
    assert (embedder.cache, embedder.n_jobs) == (tmp_path / "own", 1)
    model.predict(photos[:2])
    assert (tmp_path / "own").is_dir()


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
            with pytest.raises(InputError, match="2 classes that the model does not know"):
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
    with pytest.raises(InputError, match="1 classes that the model does not know, such as 7"):
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
