"""featuretl explain and featuretl export: files, JSON, and mistakes in one sentence."""

import json

import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier, NearestMeanClassifier, save_model

pytestmark = pytest.mark.usefixtures("exported_once")


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """The file of a linear probe on a small network."""
    path = tmp_path_factory.mktemp("model") / "photos.featuretl"
    embedder = ImageEmbedder("test_resnet", weights="random", cache=None)
    head = LinearProbeClassifier(random_state=0)
    save_model(make_pipeline(embedder, head).fit(photos, ["flower"] * 12 + ["temple"] * 12), path)
    return path


def assert_one_line_error(result, named, code=1):
    assert result.exit_code == code
    assert result.stdout == ""
    assert named in result.stderr.splitlines()[-1]
    assert "bug in featuretl" not in result.stderr


def test_explain_writes_one_picture(model, photos, tmp_path):
    result = run("explain", model, photos[0], photos[20], "-o", "o.png", "--height", "64")
    assert result.exit_code == 0, result.output
    first, _, last = result.stdout.splitlines()
    assert first.startswith(f"{photos[0]}: flower: ") and first.endswith("(class activation map)")
    assert last == "Wrote o.png"
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.size == (2 * 79 + 6, 64 + 22)


def test_explain_for_machines(model, photo_folder, tmp_path):
    result = run(
        "explain", model, photo_folder / "temple", "-o", "out", "--target", "flower", "--json"
    )
    facts = json.loads(result.stdout)
    assert len(facts) == 12 == len(list((tmp_path / "out").iterdir()))
    for fact in facts:
        mean = sum(map(sum, fact["heat"])) / sum(map(len, fact["heat"]))
        assert mean + fact["bias"] == pytest.approx(fact["score"], rel=1e-4, abs=1e-4)
        assert fact["target"] == "flower"
        assert (tmp_path / fact["output"]).is_file()


def test_mistakes_in_explaining(model, photos, tmp_path):
    (tmp_path / "bad.jpg").write_text("<html>")
    bad = run("explain", model, "bad.jpg", "-o", "o.png")
    assert_one_line_error(bad, "Cannot explain bad.jpg: not an image")
    wasp = run("explain", model, photos[0], "-o", "o.png", "--target", "wasp")
    assert_one_line_error(wasp, "a class of the model (flower, temple); got 'wasp'")
    many = run("explain", model, *photos, "-o", "o.png")
    assert_one_line_error(many, "holds 12 overlays; got 24")
    head = NearestMeanClassifier().fit([[0.0], [1.0]], [0, 1])
    save_model(head, tmp_path / "head.featuretl")
    alone = run("explain", "head.featuretl", photos[0], "-o", "o.png")
    assert_one_line_error(alone, "must predict from images")
    assert not (tmp_path / "o.png").exists()


def test_export_says_what_it_wrote(model, photos, tmp_path):
    result = run("export", model, "-o", "m.onnx", "--check", photos[0], "--json")
    facts = json.loads(result.stdout)
    assert facts["checked"] == 5 and facts["difference"] < 1e-4 and facts["loss"] is None
    assert facts["outputs"] == ["decision", "probabilities", "label"]
    assert facts["bytes"] == (tmp_path / "m.onnx").stat().st_size


def test_export_in_int8_prints_the_loss(model, photos, photo_folder):
    result = run("export", model, "-o", "m.onnx", "--precision", "int8", "--evaluate", photo_folder / "*/0*.jpg", "--calibrate", photos[10], "--calibrate", photos[22])  # fmt: skip
    assert result.exit_code == 1
    assert "20 images have no label" in result.stderr
    result = run("export", model, "-o", "m.onnx", "--precision", "int8", "--evaluate", photo_folder, "--calibrate", photos[10])  # fmt: skip
    assert_one_line_error(result, "1 images are both in calibrate and in evaluate")
    Image.open(photos[10]).rotate(90).save("turned.png")
    result = run("export", model, "-o", "m.onnx", "--precision", "int8", "--evaluate", photo_folder, "--calibrate", "turned.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Wrote m.onnx: int8, ")
    assert lines[3].startswith("accuracy in int8 ") and lines[3].endswith("on 24 images")
    assert "predictions changed" in lines[4]


def test_mistakes_in_exporting(model, photos, tmp_path):
    assert_one_line_error(run("export", model, "-o", "m.pb"), "must end in .onnx")
    assert_one_line_error(run("export", "none.featuretl", "-o", "m.onnx"), "No such file")
    int8 = run("export", model, "-o", "m.onnx", "--precision", "int8")
    assert_one_line_error(int8, "needs labelled images")
    column = run("export", model, "-o", "m.onnx", "--label-column", "kind")
    assert_one_line_error(column, "--label-column is for --evaluate", 2)
    assert not (tmp_path / "m.onnx").exists()
