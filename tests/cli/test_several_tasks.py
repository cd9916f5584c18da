"""Several --label-column: one extraction, one model file, one table of predictions, one page."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image

from featuretl import TransferClassifier, TransferRegressor, load_model, read_card
from featuretl.prediction import task_models
from featuretl.report import embedding_map

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

QUICK = ["--test-size", "0.5", "--backbone", "test_resnet", "--weights", "random"]
COLUMNS = ["--label-column", "kind", "--label-column", "light"]


def run(*args, code=0):
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


def _rows(manifest):
    with manifest.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def place(photos, shared_cache, tmp_path_factory):
    """A folder with a manifest (class and brightness of each crop) and a model trained on it."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for i, path in enumerate(photos):
        kind = "" if i in (0, 13) else Path(path).parent.name
        light = "" if i == 5 else np.asarray(Image.open(path)).mean() / 256
        rows.append(f"{path},{kind},{light},{i // 3},{i % 2},<{i % 3}>")
    lines = ["path,kind,light,walk,code,<b>odd", *rows]
    (folder / "m.csv").write_text("\n".join(lines))
    cache = ["--cache", shared_cache]
    run("train", folder / "m.csv", "-o", folder / "m.featuretl", *QUICK, *COLUMNS, *cache)
    return folder


@pytest.fixture
def manifest(place):
    return place / "m.csv"


@pytest.fixture
def model(place):
    return place / "m.featuretl"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_train_says_what_the_tasks_are(manifest, photos, shared_cache, forwards):
    result = run("train", manifest, "-o", "m.featuretl", *QUICK, *COLUMNS, "--no-cache", "--json")
    assert len(forwards) == 24  # embedded once, without a cache, for both tasks
    facts = json.loads(result.stdout)
    assert {name: task["task"] for name, task in facts["tasks"].items()} == {
        "kind": "classification",
        "light": "regression",
    }
    assert facts["tasks"]["light"]["outer"]["images"] == 12
    assert facts["tasks"]["kind"]["images"] == 22
    card = read_card("m.featuretl")
    assert card["tasks"]["kind"]["classes"] == ["flower", "temple"]
    assert card["tasks"]["kind"]["metrics"]["images"] == 11
    low, high = card["tasks"]["light"]["range"]
    assert 0 < low < high < 1
    assert card["data"]["images"] == 24


def test_each_task_is_what_the_command_makes_of_it_alone(manifest, photos, model, shared_cache):
    loaded = load_model(model)
    rows = _rows(manifest)
    common = {"backbone": "test_resnet", "weights": "random", "test_size": 0.5, "random_state": 0}
    for kind, name in [(TransferClassifier, "kind"), (TransferRegressor, "light")]:
        y = [row[name] if name == "kind" else row[name] and float(row[name]) for row in rows]
        has = [i for i, label in enumerate(y) if label]
        alone = kind("linear", cache=shared_cache, **common).fit(
            [photos[i] for i in has], [y[i] for i in has]
        )
        one = task_models(loaded)[name]
        np.testing.assert_allclose(one[-1].coef_, alone.estimator_[-1].coef_, rtol=1e-4, atol=1e-6)
        assert loaded.decisions_[name].outer.score == pytest.approx(alone.decision_.outer.score)


def test_numbers_are_recognised_or_said(manifest, shared_cache):
    shared = ["--cache", shared_cache]
    args = ["train", manifest, "-o", "m.featuretl", *QUICK, *shared, "--label-column"]
    result = run(*args, "kind", "--label-column", "code", "--label-column", "walk")
    assert re.search(r"^code: classification ", result.stdout, re.M)
    assert re.search(r"^walk: classification ", result.stdout, re.M)
    # pandas writes whole numbers in a column with gaps as 0.0 and 1.0.
    gaps = ["path,code", *(f"{row['path']},{row['code']}.0" for row in _rows(manifest)[1:])]
    Path("gaps.csv").write_text("\n".join([*gaps, f"{_rows(manifest)[0]['path']},"]))
    few = ["--label-column", "code", "--n-bootstrap", 0, "--json"]
    found = json.loads(run("evaluate", "m.featuretl", "gaps.csv", *shared, *few).stdout)
    assert list(found["tasks"]["code"]["per_class"]) == ["0", "1"]
    assert found["tasks"]["code"]["n"] == 23
    result = run(*args, "kind", "--target", "walk", "--target", "light", "--groups", "walk")
    assert re.search(r"^walk: regression .*24 images.* r2 ", result.stdout, re.M)
    assert load_model("m.featuretl").tasks_ == {
        "kind": "classification",
        "walk": "regression",
        "light": "regression",
    }


def test_evaluate_scores_each_task(manifest, model, shared_cache):
    few = ["--n-bootstrap", 5, "--cache", shared_cache]
    result = run("evaluate", model, manifest, *few)
    assert re.search(
        r"kind: 22 images.*accuracy.*flower.*light: 23 images.*r2", result.stdout, re.S
    )
    facts = json.loads(run("evaluate", model, manifest, *few, "--json").stdout)
    assert (facts["task"], facts["n"]) == ("several", 24)
    assert facts["tasks"]["kind"]["scores"]["accuracy"] == 1
    assert facts["tasks"]["light"]["task"] == "regression"
    args = ["--label-column", "light", "--json"]
    assert list(json.loads(run("evaluate", model, manifest, *few, *args).stdout)["tasks"]) == [
        "light"
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict_has_columns_for_each_task(ending, manifest, model, photos, shared_cache):
    out = f"p.{ending}"
    shared = ["--cache", shared_cache, "--top", 2, "--threshold", 0.9]
    facts = json.loads(run("predict", model, manifest, "-o", out, *shared, "--json").stdout)
    if ending == "parquet":
        return
    text = Path(out).read_text().splitlines()
    rows = list(csv.DictReader(text)) if ending == "csv" else [json.loads(line) for line in text]
    assert list(rows[0]) == [
        "path", "prediction_kind", "label_1_kind", "probability_1_kind", "label_2_kind",
        "probability_2_kind", "prediction_light", "error",
    ]  # fmt: skip
    loaded = task_models(load_model(model))
    light = loaded["light"].predict(photos)
    np.testing.assert_allclose([float(row["prediction_light"]) for row in rows], light, atol=1e-5)
    sure = [row for row in rows if float(row["probability_1_kind"]) >= 0.9]
    assert all(row["prediction_kind"] == row["label_1_kind"] for row in sure)
    assert facts["abstained"] == len(rows) - len(sure)


def test_an_image_that_cannot_be_read_is_scored_in_no_task(manifest, model, shared_cache):
    lines = manifest.read_text().splitlines()
    Path("bad.jpg").write_text("<html>")
    Path("m.csv").write_text("\n".join([lines[0], "bad.jpg,temple,0.5,0,0,x", *lines[2:6]]))
    shared = ["--cache", shared_cache]
    facts = json.loads(
        run("evaluate", model, "m.csv", *shared, "--n-bootstrap", 0, "--json").stdout
    )
    assert facts["n"] == 4
    assert facts["tasks"]["light"]["n"] == 4
    assert "not an image" in facts["failures"][0]["error"]
    run("predict", model, "m.csv", "-o", "p.jsonl", *shared)
    first = json.loads(Path("p.jsonl").read_text().splitlines()[0])
    assert first["prediction_kind"] is first["prediction_light"] is None
    assert "not an image" in first["error"]


def test_one_page_with_a_section_for_each_task(manifest, model, shared_cache, monkeypatch):
    monkeypatch.setattr(embedding_map, "map_of", lambda X, random_state: X[:, :2])
    quick = ["--cache", shared_cache, "--n-bootstrap", 4, "--cv", 2]
    result = run("report", model, manifest, "-o", "r.html", *quick, "--train", manifest)
    assert re.search(
        r"^kind: accuracy: .* on 22 images.*^light: r2: .* on 23 images", result.stdout, re.M | re.S
    )
    page = Path("r.html").read_text()
    for anchor in ("task-1", "task-2", "classes-1", "mistakes-1", "residuals-2", "decision-2"):
        assert page.count(f'id="{anchor}"') == 1
    assert page.count('<section id="map">') == 1
    assert page.count('id="duplicates') == 1


def test_hostile_names_of_tasks_are_escaped(manifest, shared_cache, monkeypatch):
    monkeypatch.setattr(embedding_map, "map_of", lambda X, random_state: X[:, :2])
    columns = ["--label-column", "<b>odd", "--target", "light"]
    shared = ["--cache", shared_cache]
    run("train", manifest, "-o", "m.featuretl", *QUICK, *shared, *columns)
    quick = ["--n-bootstrap", 0, "--cv", 2, "--no-explain", "--json"]
    found = json.loads(
        run("report", "m.featuretl", manifest, "-o", "r.html", *shared, *quick).stdout
    )
    assert (found["task"], list(found["tasks"])) == ("several", ["<b>odd", "light"])
    assert found["tasks"]["light"]["scored"] == 23
    page = Path("r.html").read_text()
    assert "<b>odd" not in page
    assert "&lt;b&gt;odd: Classes" in page


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["train", *COLUMNS, "--label-separator", ";"], "exclude each other", 2),
        (["train", "--label-column", "a,b", "--label-column", "walk"], "must name one column", 2),
        (["train", "--label-column", "kind", "--label-column", "kind"], "different one", 2),
        (["train", "--label-column", "light", "--target", "light"], "name a column twice", 2),
        (["train", *COLUMNS, "--strategy", "svm"], "'strategy' parameter of TransferMultiTask", 1),
        (["train", *COLUMNS, "--backbone", "auto", "--weights", "auto"], "backbone", 1),
        (["train", "--label-column", "kind", "--target", "<b>odd"], "numbers", 1),
        (["train", "--label-column", "kind", "--label-column", "none"], "'none'", 1),
        (["evaluate", "--label-column", "walk"], "walk", 1),
        (["evaluate", "--label-column", "kind,light"], "once for each, without commas", 2),
        (["predict", "-o", "p.xls"], "must end in .csv", 1),
        (["explain", "-o", "evidence"], "kind, light", 1),
        (["export", "-o", "m.onnx"], "task_models(model)", 1),
    ],
)  # fmt: skip
def test_mistakes(args, message, code, manifest, model, photos):
    command, *options = args
    source = {
        "train": [manifest, "-o", "x.featuretl", *QUICK],
        "export": [model],
        "explain": [model, photos[0]],
    }
    result = run(command, *source.get(command, [model, manifest]), *options, code=code)
    assert message in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_a_model_of_one_task_takes_one_column(manifest, photo_folder, shared_cache):
    run("train", photo_folder, "-o", "one.featuretl", "--strategy", "linear", *QUICK)
    result = run("evaluate", "one.featuretl", manifest, *COLUMNS, code=2)
    assert "The model has one task; give --label-column once" in result.stderr
