"""Sections with text, tables and figures."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from featuretl.report import sections


def test_numbers_have_residuals_and_no_classes(
    report, page_of, embeddings, embedder, photos, path, quick
):
    y = np.linspace(0, 1, 24)
    found = report(embeddings, photos, y, path, task="regression")
    page = page_of(path)
    assert "residuals" in page.ids
    assert not {"classes", "label-errors"} & page.ids
    assert found["task"] == "regression"
    assert found["per_class"] is None
    assert abs(found["mistakes"][0]["error"]) >= abs(found["mistakes"][1]["error"])
    model = make_pipeline(embedder, Ridge()).fit(photos[:16], y[:16])
    found = report(model, photos[16:], y[16:], path)
    assert found["learning_curve"] is None or found["learning_curve"]["score"] == "R2"
    assert "R2" in page_of(path).text


def test_a_model_without_probabilities(report, page_of, embedder, photos, labels, path, quick):
    model = make_pipeline(embedder, LinearSVC()).fit(photos, 1 - (labels == "temple"))
    found = report(model, photos, [str(int(x != "temple")) for x in labels], path)
    assert "log_loss" not in found["scores"]
    assert "Calibration" not in page_of(path).text


def test_many_classes_are_cut_and_said(report, page_of, path, quick):
    rng = np.random.default_rng(0)
    y = np.repeat([f"{i:03d}" for i in range(70)], 3)
    X = np.repeat(rng.normal(size=(70, 20)), 3, axis=0) + 0.3 * rng.normal(size=(210, 20))
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(210)]
    report(X, images, y, path)
    assert "60 of 70 classes are shown" in page_of(path).text


@pytest.fixture(scope="module")
def classes(examined):
    """Findings on 40 images of three classes, one of which has a single image."""
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 5)) + y[:, None]
    return examined(X, [*np.array(["a\x1b[31m", "b"])[y[:39]], "c"])


@pytest.fixture(scope="module")
def numbers(examined):
    X = np.random.default_rng(0).normal(size=(40, 5))
    return examined(X, X[:, 0], is_regression=True)


def test_each_section_knows_its_task(classes, numbers):
    assert sections.residuals(classes) is None
    assert sections.class_section(numbers) is None
    assert len(sections.residuals(numbers)) == 2
    assert [curve["name"] for curve in sections.curves(classes)] == ["Calibration", "Learning curve"]  # fmt: skip
    assert [curve["name"] for curve in sections.curves(numbers)] == ["Learning curve"]


def test_tiles_are_scores_with_intervals_and_the_number_of_images(classes, numbers, monkeypatch):
    *scores, last = sections.tiles(classes)
    assert [tile["name"] for tile in scores][:2] == ["accuracy", "balanced accuracy"]
    assert scores[0]["value"] == f"{classes.metrics.scores['accuracy']:.3f}"
    low, high = classes.metrics.intervals["accuracy"]
    assert scores[0]["more"] == f"{low:.3f} to {high:.3f}"
    assert (last["name"], last["value"], last["more"]) == ("images scored", "39", "of 40")
    assert "R2" in [tile["name"] for tile in sections.tiles(numbers)]
    monkeypatch.setattr(numbers.subject, "trained_on", 40)
    *scores, last = sections.tiles(numbers)
    assert all(tile["name"].startswith("training ") for tile in scores)
    assert last["more"] == ""


def test_the_table_of_classes_begins_with_the_lowest_recall(classes):
    section = sections.class_section(classes)
    recalls = [row["recall"] for row in section["rows"]]
    assert recalls == sorted(recalls)
    assert {row["class"] for row in section["rows"]} == {r"a\x1b[31m", "b"}
    assert section["left_out"] == "Classes without scored images: c."
    lows = [row[f"{score}_low"] for row in section["rows"] for score in ("recall", "precision")]
    assert section["least"] <= min(lows)
    assert section["least"] == pytest.approx(round(section["least"], 1))
    assert section["matrix"].count("\x1b") == 0


def test_figures_take_the_colours_of_the_page_and_are_closed():
    open_before = plt.get_fignums()
    figure = sections._svg(lambda ax: ax.set(title="$a_1$ <b>"), "a <label>", (3, 2))
    assert figure.startswith("<svg ") and 'aria-label="a &lt;label&gt;"' in figure
    assert "$a_1$ &lt;b&gt;" in figure
    assert "currentColor" in figure and "var(--faint)" in figure
    assert not {sections._INK, sections._FAINT} & set(re.findall("#[0-9a-f]{6}", figure))
    assert "<style" not in figure and "<metadata" not in figure
    with pytest.raises(ZeroDivisionError):
        sections._svg(lambda ax: 1 / 0, "broken")
    assert plt.get_fignums() == open_before


def test_a_decision_is_taken_from_the_model_or_its_card():
    assert sections.decision(None, {}) is None
    assert sections.decision("", {"decision": ""}) is None
    found = sections.decision(None, {"decision": "linear won\n\x1b[31mby far"})
    assert found == {"lines": ["linear won", r"\x1b[31mby far"], "rows": [], "columns": []}
    assert sections.decision("told\nso", {"decision": "ignored"})["lines"] == ["told", "so"]
    candidates = pd.DataFrame(
        {
            "strategy": ["linear", "fine-tune"],
            "backbone": ["a", "b"],
            "score": [0.9, np.nan],
            "low": [0.8, np.nan],
            "high": [0.95, np.nan],
            "images": [1200, 0],
            "verdict": ["chosen", "skipped"],
        }
    )
    made = SimpleNamespace(candidates=candidates, score_name="accuracy", explain=lambda: "why")
    found = sections.decision(made, {})
    assert found["columns"][2] == "accuracy"
    assert found["rows"] == [
        ["linear", "a", "0.900 (0.800 to 0.950)", "1,200", "chosen"],
        ["fine-tune", "b", "", "", "skipped"],
    ]
    made.candidates = candidates[:1]
    assert sections.decision(made, {})["rows"] == []  # nothing to compare


def test_facts_of_a_card_are_printable_and_need_no_form(classes):
    methods = ["folds of the linear probe", "near-duplicates", "intervals"]
    odd = {"data": 3, "metrics": [], "versions": "1", "model": None}
    assert [name for name, _ in sections.about(classes.subject, odd)] == methods
    card = {
        "backbone": "a\x1b[31m",
        "data": {"images": 5, "sha256": "0f"},
        "metrics": {"accuracy": 0.98765, "by": "folds"},
        "versions": {"torch": "2"},
    }
    facts = dict(sections.about(classes.subject, card))
    assert facts["backbone"] == r"a\x1b[31m"
    assert facts["trained on"] == "5 images, sha256 0f"
    assert facts["held-out scores at training time"] == "accuracy 0.988, by folds"
    assert facts["versions"] == "torch 2"


def test_long_names_are_cut():
    assert sections._cut("a" * 24) == "a" * 24
    assert sections._cut("a" * 25) == "a" * 23 + "…"
