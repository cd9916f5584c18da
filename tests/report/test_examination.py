"""The findings of a report as DataFrames and as JSON."""

import numpy as np
from PIL import Image


def test_leaks_from_training_are_found(
    report, page_of, trained, model, photos, labels, tmp_path, path, quick
):
    leaked = tmp_path / "leaked.png"
    pixels = np.asarray(Image.open(photos[0]))
    Image.fromarray((pixels * 0.98).astype(np.uint8)).save(leaked)
    train = [photos[i] for i in trained], labels[trained]
    images = [str(leaked), photos[20]]
    found = report(model, images, ["flower", "temple"], path, train=train, threshold=0.97)
    assert [(row["first"], row["second"]) for row in found["leaks"]] == [(str(leaked), photos[0])]
    assert "leaks" in page_of(path).ids
    assert found["learning_curve"]["measured_on"] == "these images, over 5 draws of training images"
    assert found["trained_on"] == 0
    again = report(model, photos, labels, path, train=train)
    assert again["trained_on"] == 16


def test_all_intervals_of_a_report_know_groups(report, embeddings, photos, labels, path, quick):
    y = labels.copy()
    y[::5] = y[1::5]
    alone, together = (
        report(embeddings, photos, y, path, groups=of)["intervals"]
        for of in (np.arange(24), np.arange(24) % 6)
    )
    for score in ("accuracy", "f1_macro"):
        assert 0 <= alone[score][0] < alone[score][1] <= 1
        assert together[score] != alone[score]
    assert "calibration_error" not in alone
