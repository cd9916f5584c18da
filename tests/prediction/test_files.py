"""predict_to_file: formats agree, and killed runs resume."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from featuretl import ImageEmbedder, LinearProbeClassifier, load_model, predict_to_file, save_model
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.prediction import files as files_module
from featuretl.prediction import predict as prediction_module
from featuretl.prediction.parts import Parts


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
