"""Novelty of images: saved by train and reported by predict, in Python and on the command line."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

from featuretl import (
    ImageEmbedder,
    LinearProbeClassifier,
    TransferClassifier,
    load_model,
    predict_to_file,
    read_card,
)
from featuretl.exceptions import InputError, ParameterError
from featuretl.prediction import files as files_module
from featuretl.prediction import predict as prediction_module
from featuretl.prediction.predict import predict_images, use_machine

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def run(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Five files of handwritten digits, unlike temples and flowers."""
    folder = tmp_path_factory.mktemp("digits")
    for i, image in enumerate(load_digits().images[:5]):
        Image.fromarray((image * 15).astype(np.uint8)).resize((96, 96)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(photos, shared_cache, tmp_path_factory):
    """A model file of the packaged backbone, trained on all crops except for one of empty sky."""
    path = tmp_path_factory.mktemp("model") / "photos.featuretl"
    rows = [f"{p},{p.split('/')[-2]}" for p in photos if not p.endswith("temple/00.jpg")]
    manifest = path.with_suffix(".csv")
    manifest.write_text("\n".join(["path,label", *rows]))
    quick = ["--strategy", "linear", "--test-size", "none"]
    result = run("train", manifest, "-o", path, "--label-column", "label", "--cache", shared_cache, *quick)  # fmt: skip
    assert result.exit_code == 0, result.output
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_digits_are_novel_to_a_model_of_photographs(
    model, photos, digits, shared_cache, tmp_path, monkeypatch
):
    assert read_card(model)["novelty"] == {"references": 23}
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    out, shared = tmp_path / "out.csv", ["--cache", shared_cache]
    result = run("predict", model, bad, *photos[:4], digits, "-o", out, "--novelty", *shared)
    assert result.exit_code == 0, result.output
    assert (
        "5 of 9 images are unlike the training images at the 5% level, where 0.4 are expected: "
        "the images may have changed (p = "
    ) in result.stdout.splitlines()[-1]
    novelty = {row["path"].rsplit("/")[-1]: row["novelty"] for row in rows_of(out)}
    assert novelty["bad.jpg"] == ""
    assert [float(novelty[f"{i}.png"]) for i in range(5)] == [1 - 1 / 24] * 5
    assert max(float(row["novelty"]) for row in rows_of(out)[1:5]) < 0.95
    for module in (prediction_module, files_module):
        monkeypatch.setattr(module, "BATCH", 4)
    facts = json.loads(
        run("predict", model, *photos[:4], digits, "-o", out, "--novelty", *shared, "--json").stdout
    )
    drift = facts["drift"]
    assert (drift["images"], drift["novel"], drift["level"]) == (9, 5, 0.05)
    assert drift["pvalue"] < 0.001
    assert drift["expected"] == pytest.approx(9 / 24)


def test_python_says_the_same(model, photos, digits, shared_cache):
    loaded = load_model(model)
    use_machine(loaded, cache=shared_cache)
    images = [*photos[:3], *map(str, sorted(digits.iterdir()))]
    found = predict_images(loaded, images, novelty=True)
    X = ImageEmbedder(cache=shared_cache).transform(images)
    np.testing.assert_array_equal(found.novelty, loaded.novelty_[-1].novelty(X))
    assert loaded.novelty_.predict(images).tolist() == [1, 1, 1] + [-1] * 5
    np.testing.assert_array_equal(loaded.novelty_.score_samples(images) < loaded.novelty_[-1].offset_, loaded.novelty_.predict(images) < 0)  # fmt: skip
    assert predict_images(loaded, images).novelty is None


def test_a_model_without_says_what_to_do(photos, photo_folder, shared_cache, tmp_path):
    tiny = ["--strategy", "linear", "--test-size", "none", "--backbone", "test_resnet", "--weights", "random"]  # fmt: skip
    path, out = tmp_path / "m.featuretl", tmp_path / "out.csv"
    shared = ["--cache", shared_cache]
    assert run("train", photo_folder, "-o", path, *tiny, *shared, "--no-novelty").exit_code == 0
    assert "novelty" not in read_card(path)
    result = run("predict", path, photos[0], "-o", out, "--novelty", *shared)
    assert result.exit_code == 1
    assert "no novelty detector; train it again" in result.stderr
    assert not out.exists()
    embedder = ImageEmbedder("test_resnet", weights="random", cache=shared_cache)
    pipe = make_pipeline(embedder, LinearProbeClassifier()).fit(photos, [0] * 12 + [1] * 12)
    with pytest.raises(InputError, match="train it again"):
        predict_to_file(pipe, photos, out, novelty=True)
    with pytest.raises(ParameterError, match="'novelty' parameter of predict_to_file"):
        predict_to_file(pipe, photos, out, novelty="yes")


def test_a_fine_tuned_model_knows_too(photos, shared_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("featuretl.transfer.experiment._EPOCHS", (1, 1))
    labels = [path.split("/")[-2] for path in photos]
    chooser = TransferClassifier(
        "fine-tune", backbone="test_resnet", weights="random", test_size=None, cv=2, time_budget=1,
        cache=shared_cache, random_state=0,
    ).fit(photos, labels)  # fmt: skip
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    found = predict_images(chooser, [str(bad), *photos[:3]], novelty=True)
    X = ImageEmbedder("test_resnet", weights="random", cache=shared_cache).transform(photos[:3])
    np.testing.assert_array_equal(found.novelty, chooser.novelty_[-1].novelty(X))
    assert len(predict_images(chooser, [str(bad)], novelty=True).novelty) == 0
    groups = ["one"] * 24  # nothing to hold out
    chooser.set_params(strategy="linear").fit(photos, labels, groups=groups)
    assert not hasattr(chooser, "novelty_")
