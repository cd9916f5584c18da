"""featuretl report: a page of a model file, and of a file of embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli

from featuretl.exceptions import InputError
from featuretl.extraction.outputs import load_embeddings

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")

TINY = ["--backbone", "test_resnet", "--weights", "random"]
FEW = ["--n-bootstrap", "3", "--cv", "2"]


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def halves(photos, tmp_path_factory):
    """Class folders of the even and of the odd crops."""
    root = tmp_path_factory.mktemp("halves")
    for i, photo in enumerate(map(Path, photos)):
        place = root / str(i % 2) / photo.parent.name / photo.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo.read_bytes())
    return root / "0", root / "1"


@pytest.fixture(scope="module")
def model(halves, shared_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "photos.featuretl"
    options = ["--strategy", "linear", "--test-size", "none", "--cache", shared_cache, *TINY]
    result = run("train", halves[0], "-o", path, *options)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module", params=["npy", "npz", "parquet"])
def embeddings(request, photo_folder, shared_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / f"photos.{request.param}"
    result = run("extract", photo_folder, "-o", path, "--cache", shared_cache, *TINY)
    assert result.exit_code == 0, result.output
    return path


def test_a_model_is_reported_on(model, halves, shared_cache, tmp_path):
    result = run("report", model, halves[1], "-o", "report.html", "--cache", shared_cache, *FEW)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("accuracy: ")
    assert "on 12 images\nmistakes: " in result.stdout
    assert result.stdout.endswith("Report: report.html\n")
    page = (tmp_path / "report.html").read_text()
    assert "<title>photos.featuretl" in page
    assert "the linear probe on test_resnet was chosen" in page
    assert "none of the 12 images is a training image" in page


def test_for_machines_with_leaks_and_images_of_training(model, halves, shared_cache, photos):
    more = ["--train", halves[0], "--cache", shared_cache, "--json", *FEW]
    result = run("report", model, *halves, "-o", "report.html", *more)
    found = json.loads(result.stdout)
    assert found["trained_on"] == 12
    assert found["scored"] == 12
    assert found["output"] == "report.html"
    exact = [row for row in found["leaks"] if row["first"] == row["second"]]
    assert len(exact) == 12
    assert "trained on 12 of these 24 images" in found["warnings"][0]


def test_embeddings_are_reported_on(embeddings, tmp_path, photos):
    result = run("report", embeddings, "-o", "report.html", "--json", *FEW)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["scored"] == 24
    assert {row["class"] for row in found["per_class"]} == {"flower", "temple"}
    assert "out-of-fold" in found["scores_are"]
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_embeddings_of_some_photos_by_groups_and_numbers(embeddings, photos, tmp_path):
    rows = [
        f"{path},{path.split('/')[-2]},{i // 3},{i / 10}" for i, path in enumerate(photos[6:18])
    ]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["path,kind,walk,height", *rows]))
    common = ["report", embeddings, manifest, "-o", "report.html", "--json", *FEW]
    found = json.loads(run(*common, "--label-column", "kind", "--groups", "walk").stdout)
    assert found["scored"] == 12
    assert "each group in one of them" in found["scores_are"]
    found = json.loads(run(*common, "--label-column", "height", "--task", "regression").stdout)
    assert found["task"] == "regression"


def test_what_was_written_is_read_again(embeddings, photos):
    stored = load_embeddings(embeddings)
    assert stored.paths == photos
    assert stored.labels == [path.split("/")[-2] for path in photos]
    assert stored.embeddings.shape == (24, stored.metadata["shape"][1])
    assert stored.metadata["backbone"] == "test_resnet"


@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_files_that_hold_no_embeddings_are_refused(ending, tmp_path):
    path = tmp_path / f"x.{ending}"
    np.savez(tmp_path / "evil.npz", embeddings=np.array([{}], object), paths=["a"], metadata="{}")
    for content in (b"", b"PAR1", b"\x93NUMPY", (tmp_path / "evil.npz").read_bytes()):
        path.write_bytes(content)
        (tmp_path / "x.npy.json").write_text('{"paths": [1], "labels": null}')
        with pytest.raises(InputError, match="cannot be read as a file of embeddings"):
            load_embeddings(path)
    with pytest.raises(InputError, match="cannot be read as a file of embeddings: No such file"):
        load_embeddings(tmp_path / f"none.{ending}")


def test_mistakes_are_one_line(model, embeddings, halves, photo_folder, tmp_path):
    def failed(result, words, code=1):
        assert result.exit_code == code
        assert result.stdout == ""
        assert words in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
        assert "bug in featuretl" not in result.stderr

    failed(run("report", model, halves[1], "-o", "report.pdf"), "must end in .html")
    failed(run("report", model, "-o", "r.html"), "MODEL needs PHOTOS", 2)
    failed(run("report", embeddings, "-o", "r.html", "--train", halves[0]), "belongs to a MODEL", 2)
    for option in ("--groups", "--label-column", "--path-column"):
        failed(run("report", embeddings, "-o", "r.html", option, "x"), "has no columns", 2)
    failed(run("report", embeddings, halves[0], "-o", "r.html"), "holds no embedding of 12 of 12")
    failed(run("report", "x.txt", "-o", "r.html"), "A file of embeddings ends in")
    failed(run("report", "none.featuretl", halves[1], "-o", "r.html"), "No such file")
    failed(run("report", model, halves[1] / "flower", "-o", "r.html"), "images have no label")
    assert not list(tmp_path.glob("*.html"))
