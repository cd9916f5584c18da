"""The examples run, and their scores support their claims."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the images and the cache that all examples share."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def scores(place, monkeypatch, capsys):
    """Return a function that runs an example and returns the scores that it prints."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("FEATURETL_CACHE", str(place / "cache"))

    def run(name: str) -> list[float]:
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        finally:
            sys.modules.pop("example_data", None)
        out = capsys.readouterr().out
        return [float(number) for number in re.findall(r": (-?\d+\.\d{3})$", out, re.MULTILINE)]

    return run


def needs(*modules: str) -> None:
    """Skip the test if a package of the extra `test` is missing, without importing it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'featuretl[test]'")


def test_every_example_is_run():
    here = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        elsewhere = path.stem in ("example_data", "serve_onnx")  # serve_onnx: tests/export
        assert elsewhere or f'scores("{path.stem}")' in here, path.name
        assert len(path.read_text().splitlines()) <= 80


def test_patch_mask(scores):
    needs("matplotlib")
    accuracy, share = scores("patch_mask")
    assert accuracy > 0.9 > 1 - share


@pytest.mark.slow
def test_batch_norm(scores):
    plain, own = scores("batch_norm")
    assert own > plain + 0.1


def test_pipeline(scores):
    folds, held_out = scores("pipeline")
    assert folds > 0.75
    assert held_out > 0.8


@pytest.mark.slow
def test_grid_search(scores):
    *cross_validated, held_out = scores("grid_search")
    assert len(cross_validated) == 4
    assert held_out > 0.65


def test_few_shot(scores):
    one, probe_of_one, _, _, ten, probe_of_ten = scores("few_shot")
    assert one > probe_of_one
    assert min(ten, probe_of_ten) > one


def test_several_labels(scores):
    f1, guess = scores("tags")
    assert f1 > guess + 0.2


def test_numbers(scores):
    r2, error, always = scores("regression")
    assert r2 > 0.6
    assert error < always / 2


@pytest.mark.slow
def test_two_stages(scores):
    probe, tuned = scores("fine_tune")
    assert min(probe, tuned) > 0.9  # the example claims no gain on 80 images


def test_similarity_search(scores):
    same, any_five, faiss_agrees = scores("similarity_search")
    assert same > 4 * any_five
    assert faiss_agrees == 1.0


@pytest.mark.slow
def test_semi_supervised(scores):
    trained, alone = scores("semi_supervised")
    assert min(trained, alone) > 0.6  # ten classes; the example claims no gain


def test_other_steps(scores):
    fitted, loaded = scores("other_steps")
    assert fitted == loaded > 0.6


def test_sound(scores):
    needs("soundfile", "FoxDot")
    held_out, guess = scores("sound_samples")
    assert held_out > guess + 0.2


@pytest.mark.slow
def test_video(scores):
    needs("av")
    one_frame, pooled = scores("video_clips")
    assert pooled > one_frame > 0.3  # four classes


def test_text(scores):
    needs("sentence_transformers")
    encoder, words, guess = scores("text_summaries")
    assert min(encoder, words) > guess + 0.3  # the example claims no gain of the encoder


def test_label_errors(scores):
    found, chance = scores("label_errors")
    assert found > 5 * chance


@pytest.mark.slow
def test_boosted_trees(scores):
    trees, probe = scores("boosted_trees")
    assert min(trees, probe) > 0.5  # ten classes


def test_images_and_table(scores):
    needs("skrub")
    both, images, table = scores("images_and_table")
    assert both > max(images, table) + 0.05


@pytest.mark.slow
def test_cells(scores):
    seen, unseen, new = scores("cells")
    assert seen > unseen + 0.02
    assert 0.4 < new < seen


def test_explain_photographs(scores, place, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["explain_photographs.py", str(place / "explain.png")])
    scores("explain_photographs")
    with Image.open(place / "explain.png") as picture:
        assert picture.width > 2 * picture.height
