"""``featuretl train``, ``evaluate`` and ``predict``: files, scores, and one-line errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli

from featuretl import load_model, read_card
from featuretl.models.fitted import Fitted

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

TINY = ["--backbone", "test_resnet", "--weights", "random"]
QUICK = ["--strategy", "linear", "--test-size", "0.5", *TINY]
BAD_NAME = "bad\n\x1b[31m[bold].jpg"


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(photo_folder, shared_cache, tmp_path_factory):
    """The file of a model trained on the 24 crops."""
    path = tmp_path_factory.mktemp("model") / "photos.featuretl"
    result = run("train", photo_folder, "-o", path, "--cache", shared_cache, *QUICK)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def manifest(photos, tmp_path):
    """A manifest of the crops with classes, groups and numbers."""
    rows = [f"{path},{path.split('/')[-2]},{i // 3},{i / 10}" for i, path in enumerate(photos)]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(["path,kind,walk,height", *rows]))
    return path


def assert_one_line_error(result, named, code=1):
    assert result.exit_code == code
    assert result.stdout == ""
    assert named in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert "bug in featuretl" not in result.stderr


def test_train_prints_the_decision_and_writes_a_model(photo_folder, photos, tmp_path):
    result = run("train", photo_folder, "-o", "m.featuretl", *QUICK)
    assert result.exit_code == 0
    assert "linear probe on test_resnet" in result.stdout
    assert re.search(r"accuracy \d\.\d+ \(95% interval", result.stdout)
    assert result.stdout.endswith("Model: m.featuretl\n")
    card = read_card(tmp_path / "m.featuretl")
    assert card["data"]["per_class"] == {"flower": 12, "temple": 12}
    assert card["classes"] == ["flower", "temple"]
    assert card["metrics"]["images"] == 12
    assert "command" in card
    assert load_model(tmp_path / "m.featuretl").predict(photos[:1]).tolist() == ["flower"]


def test_train_for_machines(photo_folder):
    facts = json.loads(run("train", photo_folder, "-o", "m.featuretl", *QUICK, "--json").stdout)
    assert facts["strategy"] == "linear"
    assert facts["outer"]["images"] == 12
    assert facts["candidates"][0]["verdict"] == "chosen"
    assert facts["output"] == "m.featuretl"
    none = run("train", photo_folder, "-o", "m.featuretl", *QUICK, "--test-size", "none", "--json")
    assert json.loads(none.stdout)["outer"]["score"] is None


def test_several_backbones_are_compared(photo_folder, shared_cache, tmp_path):
    names = "tf_efficientnet_lite0,tf_efficientnet_lite1"
    result = run(
        "train", photo_folder, "-o", "m.featuretl", "--cache", shared_cache, "--json",
        "--strategy", "linear", "--test-size", "none", "--backbone", names, "--random-state", 7,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    tried = {candidate["backbone"] for candidate in json.loads(result.stdout)["candidates"]}
    assert tried == set(names.split(","))
    assert load_model(tmp_path / "m.featuretl").random_state == 7


def test_groups_and_numbers_of_a_manifest(manifest, tmp_path):
    columns = ["--label-column", "kind", "--groups", "walk"]
    result = run("train", manifest, "-o", "m.featuretl", *QUICK, *columns)
    assert result.exit_code == 0, result.output
    result = run("train", manifest, "-o", "n.featuretl", *QUICK, "--target", "height")
    assert result.exit_code == 0, result.output
    assert re.search(r"r2 -?\d\.\d+ \(95% interval", result.stdout)
    result = run("evaluate", "n.featuretl", manifest, "--label-column", "height", "--json")
    assert json.loads(result.stdout)["task"] == "regression"
    result = run("predict", "n.featuretl", manifest, "-o", "p.jsonl")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert all(isinstance(row["prediction"], float) for row in rows)


def test_several_labels_per_image(photo_folder, photos, shared_cache, tmp_path):
    rows = []
    for i, path in enumerate(photos):
        flower, upper = int("flower" in path), int(i % 12 < 6)
        tags = " + ".join(["flower"] * flower + ["upper"] * upper)
        rows.append(f"{path},{tags},{flower},{upper},0")
    (tmp_path / "m.csv").write_text("\n".join(["path,tags,flower,upper,none", *rows]))
    columns = ["--label-column", "flower,upper"]
    shared = ["--cache", shared_cache]
    result = run("train", "m.csv", "-o", "m.featuretl", *QUICK, *columns, *shared)
    assert result.exit_code == 0, result.output
    assert re.search(r"f1_samples \d\.\d+ \(95% interval \d", result.stdout)
    assert read_card(tmp_path / "m.featuretl")["data"]["per_class"] == {"flower": 12, "upper": 12}
    separator, few = ["--label-column", "tags", "--label-separator", "+"], ["--n-bootstrap", 20]
    facts = [
        json.loads(
            run("evaluate", "m.featuretl", "m.csv", *options, *shared, *few, "--json").stdout
        )
        for options in (columns, separator)
    ]
    assert facts[0] == facts[1]
    assert facts[0]["task"] == "multilabel"
    low, high = facts[0]["intervals"]["f1_macro"]
    assert low <= facts[0]["scores"]["f1_macro"] <= high
    assert set(facts[0]["per_class"]) == {"flower", "upper"}
    result = run("predict", "m.featuretl", "m.csv", "-o", "p.jsonl", "--threshold", 0, *shared)
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert row["prediction"] == "flower;upper"
    assert list(row)[2:] == ["probability_flower", "probability_upper", "error"]
    for options, named in [
        (["--label-column", "flower,none"], "No image has 1 in column 'none'"),
        (["--label-column", "flower,path"], "'path'"),
        ([*columns, "--target", "none"], "exclude each other"),  # several labels, and a task
        ([*separator, "--strategy", "svm"], "strategy='linear'"),
    ]:
        failed = run("train", "m.csv", "-o", "x.featuretl", *QUICK, *options, *shared)
        assert_one_line_error(failed, named, 2 if "exclude" in named else 1)
    one = run("evaluate", "m.featuretl", photo_folder, *shared)
    assert_one_line_error(one, "y must")


def test_evaluate_prints_scores_with_intervals(model, photo_folder, shared_cache):
    result = run("evaluate", model, photo_folder, "--cache", shared_cache)
    assert result.exit_code == 0
    assert re.search(r"accuracy\s+│ \d\.\d{3} │ \d\.\d{3} to \d\.\d{3}", result.stdout)
    assert re.search(r"temple\s+│ \d\.\d{3}", result.stdout)
    facts = json.loads(run("evaluate", model, photo_folder, "--json", "--n-bootstrap", "0").stdout)
    assert facts["n"] == 24
    assert facts["intervals"] == {}
    assert set(facts["per_class"]) == {"flower", "temple"}


def test_evaluate_counts_groups(model, photos, tmp_path):
    rows = [f"{path},{Path(path).parent.name},{i % 3}" for i, path in enumerate(photos)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,series", *rows]))
    columns = ["m.csv", "--label-column", "label", "--json"]
    alone, together = (
        json.loads(run("evaluate", model, *columns, *more).stdout)["intervals"]["accuracy"]
        for more in ([], ["--groups", "series"])
    )
    assert together[0] < alone[0] - 0.2


def test_bad_images_are_named(model, photos, tmp_path):
    folder = tmp_path / "photos" / "flower"
    folder.mkdir(parents=True)
    (folder / BAD_NAME).write_text("<html>")
    (folder / "good.jpg").write_bytes(Path(photos[0]).read_bytes())
    result = run("evaluate", model, folder.parent, "--json")
    facts = json.loads(result.stdout)
    assert facts["n"] == 1
    assert "not an image" in facts["failures"][0]["error"]
    assert "\x1b[31m" not in result.stderr
    result = run("predict", model, folder.parent, "-o", "out.jsonl")
    assert "1 images cannot be read; see the column error" in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == sorted(map(str, folder.iterdir()))
    assert [row["prediction"] is None for row in rows] == [True, False]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_predict_writes_a_file(ending, model, photo_folder, tmp_path):
    out = f"out.{ending}"
    result = run("predict", model, photo_folder, "-o", out, "--top", "5", "--threshold", "0.9")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Wrote 24 rows to {out}\nAbstained from ")
    facts = json.loads(run("predict", model, photo_folder, "-o", out, "--json").stdout)
    counts = {"images": 24, "resumed": 0, "failed": 0, "abstained": 0}
    assert facts == {**counts, "drift": None, "output": out}
    assert (tmp_path / out).stat().st_size > 0


def test_an_interrupted_run_says_how_to_go_on(model, photo_folder, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featuretl.prediction.predict.predict_images", interrupt)
        result = run("predict", model, photo_folder, "-o", "out.csv")
    assert result.exit_code == 130
    assert result.stderr.endswith("Interrupted. Run the command again to resume.\n")
    assert run("predict", model, photo_folder, "-o", "out.csv").exit_code == 0


def test_a_model_file_keeps_reduced_decoding(photo_folder, photos, tmp_path):
    path, small = tmp_path / "small.featuretl", ["--image-size", 16, "--crop-pct", 1]
    options = [*small, "--decode", "reduced", "--cache", tmp_path / "cache"]
    result = run("train", photo_folder, "-o", path, "--no-novelty", *options, *QUICK)
    assert result.exit_code == 0, result.output
    embedder = Fitted.of(load_model(path)).embedder
    assert embedder.recipe()["preprocess"]["decode_ratio"] == 3
    extracted = run("extract", photo_folder, "--json", *options, *TINY)
    facts = json.loads(extracted.stdout)
    assert (facts["cached"], facts["embedded"]) == (len(photos), 0)
    refused = run("train", photo_folder, "-o", path, "--decode", "reduced", "--backbone", "auto")
    assert refused.exit_code == 2
    assert "require the names of --backbone" in refused.output


def test_no_cache_keeps_nothing(model, photo_folder, cache):
    assert run("predict", model, photo_folder, "-o", "out.csv", "--no-cache").exit_code == 0
    assert not list(cache.rglob("*.npy"))


def test_training_is_the_same_in_another_process(model, photo_folder, photos, tmp_path):
    path = tmp_path / "again.featuretl"
    code = "from featuretl_cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "train", str(photo_folder), "-o", str(path), *QUICK]
    subprocess.run(arguments, check=True, capture_output=True)
    one, two = load_model(model), load_model(path)
    np.testing.assert_allclose(one.predict_proba(photos), two.predict_proba(photos), atol=1e-5)
    assert read_card(path)["command"].startswith("featuretl train ")


def test_mistakes_in_training(photo_folder, manifest, tmp_path):
    flowers = photo_folder / "flower"
    assert_one_line_error(run("train", flowers, "-o", "m.featuretl"), "12 images have no label")
    assert_one_line_error(run("train", photo_folder, "-o", "m.pkl"), ".featuretl")
    missing = run("train", photo_folder, "-o", "no/m.featuretl")
    assert_one_line_error(missing, "does not exist")
    kinds = run("train", manifest, "-o", "m.featuretl", "--target", "kind")
    assert_one_line_error(kinds, "24 of 24")
    groups = run("train", manifest, "-o", "m.featuretl", "--groups", "herd")
    assert_one_line_error(groups, "'herd'")
    size = run("train", photo_folder, "-o", "m.featuretl", "--test-size", "0.9")
    assert_one_line_error(size, "0.9", 2)
    assert not list(tmp_path.glob("*.featuretl"))


def test_mistakes_afterwards(model, photo_folder, photos, tmp_path):
    (tmp_path / "wasps").mkdir()
    (tmp_path / "wasps" / "1.jpg").write_bytes(Path(photos[0]).read_bytes())
    other = tmp_path / "other.featuretl"
    other.write_text("x")
    unknown = run("evaluate", model, tmp_path, "--json")
    assert_one_line_error(unknown, "'wasps'")
    assert_one_line_error(run("evaluate", other, photo_folder), "other.featuretl")
    assert_one_line_error(
        run("predict", "missing.featuretl", photo_folder, "-o", "p.csv"), "No such"
    )
    assert_one_line_error(run("predict", model, photo_folder, "-o", "p.xls"), ".csv")
    assert_one_line_error(run("predict", model, photo_folder / "none", "-o", "p.csv"), "none")
