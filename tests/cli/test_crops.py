"""--box-columns: each row of a manifest is a crop, in every command that reads manifests."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image

from featuretl import extract, load_backbone
from featuretl.exceptions import FeatureTLError
from featuretl.extraction.outputs import load_embeddings
from featuretl.images import Crop
from featuretl.ranking import rank

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = ["--backbone", "test_resnet", "--weights", "random"]
BOXES = ["--box-columns", "left,top,width,height"]
HEADER = "path,left,top,width,height,label"


def run(*args, code=0):
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def place(photos, tmp_path_factory):
    """A folder with 12 pictures of a flower beside a temple, and a manifest of the 24 boxes."""
    folder = tmp_path_factory.mktemp("crops")
    lines = [HEADER]
    for i in range(12):
        pair = [np.asarray(Image.open(photos[at])) for at in (i, 12 + i)]
        Image.fromarray(np.concatenate(pair, axis=1)).save(folder / f"{i:02d}.png")
        lines += [f"{i:02d}.png,0,0,120,97,flower", f"{i:02d}.png,119.6,0.2,120.4,96.7,temple"]
    (folder / "boxes.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(place, shared_cache):
    path = place / "m.featuretl"
    run(
        *("train", place / "boxes.csv", "-o", path, "--strategy", "linear", "--test-size", "0.5"),
        *(*BOXES, *TINY, "--cache", shared_cache),
    )
    return path


@pytest.fixture
def hostile(place):
    """A manifest with one good row between bad ones."""
    path = place / "hostile.csv"
    bad = [
        "ten,0,5,5",
        "0,,5,5",
        "nan,0,5,5",
        "0,0,1e999,5",
        "200,0,100,97",
        "0,0,-3,5",
        "1_0,0,9,9",
    ]
    rows = [f"00.png,{box},flower" for box in [*bad[:4], "0,0,120,97", *bad[4:]]]
    path.write_text("\n".join([HEADER, *rows]))
    return path


@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_extract_writes_the_boxes(place, ending):
    out = f"out.{ending}"
    run("extract", place / "boxes.csv", *BOXES, *TINY, "-o", out, "--no-cache")
    found = load_embeddings(out)
    assert found.boxes[:2].tolist() == [[0, 0, 120, 97], [119.6, 0.2, 120.4, 96.7]]
    assert found.labels == ["flower", "temple"] * 12
    assert [path.rsplit("/", 1)[1] for path in found.paths[1:3]] == ["00.png", "01.png"]
    picture = np.asarray(Image.open(place / "00.png"))
    crops = [picture[:, :120].copy(), picture[:, 120:].copy()]
    expected = extract(crops, load_backbone("test_resnet", weights="random")).to_numpy()
    assert np.array_equal(found.embeddings[:2], expected)


def test_parquet_manifests_have_boxes_too(place):
    frame = pd.read_csv(place / "boxes.csv")
    frame["path"] = [f"{place}/{name}" for name in frame["path"]]
    frame.to_parquet("boxes.parquet")
    run("extract", "boxes.parquet", *BOXES, *TINY, "-o", "a.npz", "--no-cache")
    run("extract", place / "boxes.csv", *BOXES, *TINY, "-o", "b.npz", "--no-cache")
    assert np.array_equal(load_embeddings("a.npz").embeddings, load_embeddings("b.npz").embeddings)


def test_without_the_option_columns_called_x_are_ignored(place):
    text = (place / "boxes.csv").read_text().replace("left,top,width,height", "x,y,w,h")
    (place / "plain.csv").write_text(text)
    facts = run("extract", place / "plain.csv", *TINY, "-o", "out.npz", "--no-cache", "--json")
    assert json.loads(facts.stdout)["embedded"] == 12
    assert load_embeddings("out.npz").boxes is None


def test_each_bad_row_is_named_with_its_row(hostile):
    args = ["extract", hostile, *BOXES, *TINY, "--no-cache", "-o", "out.npz"]
    result = run(*args, "--on-error", "nan", "--json")
    failures = json.loads(result.stdout)["failures"]
    assert [one["index"] for one in failures] == [0, 1, 2, 3, 5, 6, 7]
    assert all(f"row {one['index'] + 1} of {hostile}" in one["error"] for one in failures)
    found = load_embeddings("out.npz")
    assert np.isfinite(found.embeddings).all(axis=1).tolist() == [False] * 4 + [True] + [False] * 3
    assert np.isnan(found.boxes[0, 0])
    run(*args, code=1)


def test_a_model_is_trained_on_crops_with_the_file_as_group(model, place):
    args = [model, place / "boxes.csv", *BOXES, "--json"]
    report = json.loads(run("evaluate", *args).stdout)
    assert report["n"] == 24
    assert report["scores"]["accuracy"] > 0.6
    named = json.loads(run("evaluate", *args, "--groups", "path").stdout)
    assert named["intervals"] == report["intervals"]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_predict_writes_a_row_for_each_box(model, hostile, place, ending):
    out = f"out.{ending}"
    run("predict", model, place / "boxes.csv", hostile, *BOXES, "-o", out)
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    table = read[ending](out) if ending in read else pd.read_json(out, lines=True)
    assert list(table.columns[:6]) == ["path", "x", "y", "w", "h", "prediction"]
    assert table["x"].tolist()[:4] == [0, 119.6, 0, 119.6]
    assert table["error"].isna().tolist() == [True] * 24 + [False] * 4 + [True] + [False] * 3
    assert table["x"].isna()[24]


def test_whole_images_have_no_box_columns(model, place):
    run("predict", model, place / "00.png", "-o", "out.csv")
    assert list(pd.read_csv("out.csv").columns[:2]) == ["path", "prediction"]


def test_the_report_shows_the_crops(model, place):
    found = json.loads(
        run(
            *("report", model, place / "boxes.csv", *BOXES, "-o", "out.html", "--json"),
            *("--train", place / "boxes.csv", "--n-bootstrap", 0),
        ).stdout
    )
    assert found["scored"] == 24
    if found["mistakes"]:
        assert "w=1" in found["mistakes"][0]["path"]


def test_a_report_on_embeddings_finds_the_rows_by_box(place):
    run("extract", place / "boxes.csv", *BOXES, *TINY, "-o", "out.parquet", "--no-cache")
    lines = (place / "boxes.csv").read_text().splitlines()
    some = place / "some.csv"
    some.write_text("\n".join([lines[0], *reversed(lines[3:])]))
    args = ["-o", "out.html", "--json", "--n-bootstrap", 0, "--no-explain"]
    assert json.loads(run("report", "out.parquet", *args).stdout)["scored"] == 24
    assert json.loads(run("report", "out.parquet", some, *BOXES, *args).stdout)["scored"] == 22
    run("report", "out.parquet", some, *args, code=1)


def test_suggestions_name_the_boxes_and_can_be_read_again(place):
    unlabelled = place / "unlabelled.csv"
    lines = (place / "boxes.csv").read_text().splitlines()
    unlabelled.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines))
    run(
        "suggest", unlabelled, *BOXES, "--backbone", "tf_efficientnet_lite0", "-n", 3, "-o", "a.csv"
    )
    rows = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert list(rows[0]) == ["path", "x", "y", "w", "h", "label"]
    assert len({(row["path"], row["x"]) for row in rows}) == 3
    again = run("extract", "a.csv", "--box-columns", "x,y,w,h", *TINY, "--no-cache", "--json")
    assert json.loads(again.stdout)["embedded"] == 3


def test_rank_takes_boxes(place, monkeypatch):
    given = []

    def caught(images, *args, **options):
        given.extend(images)
        raise FeatureTLError("enough")

    monkeypatch.setattr(rank, "rank_backbones", caught)
    run("rank", place / "boxes.csv", *BOXES, code=1)
    assert given[1] == Crop(f"{place}/00.png", 119.6, 0.2, 120.4, 96.7)


@pytest.mark.parametrize(
    ("args", "named", "code"),
    [
        (["--box-columns", "left,top"], "four columns", 2),
        (["--box-columns", "left,top,width,depth"], "depth", 1),
        ([*BOXES, "--engine", "loky"], "--engine threads", 2),
    ],
)
def test_wrong_options_are_one_sentence(place, args, named, code):
    result = run("extract", place / "boxes.csv", *args, *TINY, code=code)
    assert named in result.stderr.splitlines()[-1]


def test_a_source_without_columns_is_refused(place):
    assert "box_columns" in run("extract", place, *BOXES, code=2).stderr.splitlines()[-1]
