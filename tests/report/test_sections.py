"""Sections with text, tables and figures."""

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC


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
