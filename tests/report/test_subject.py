"""Which images are scored, and which are named instead."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier
from featuretl.exceptions import InputError
from featuretl.models.card import data_of
from featuretl.report.subject import short_names


def test_images_of_training_are_not_scored(
    report, page_of, trained, model, photos, labels, path, quick
):
    card = {"data": data_of([photos[i] for i in trained], labels[trained])}
    found = report(model, photos, labels, path, card=card)
    assert (found["trained_on"], found["scored"]) == (16, 8)
    assert "trained on 16 of these 24 images" in page_of(path).text
    assert "out-of-fold" in found["label_errors_by"]
    seen = [photos[i] for i in trained]
    found = report(model, seen, labels[trained], path, card=card)
    assert (found["trained_on"], found["scored"]) == (16, 16)
    assert "trained on all of these 16 images" in found["warnings"][0]
    assert "training accuracy" in page_of(path).text


def test_it_says_when_it_does_not_know(report, page_of, model, photos, labels, path, quick):
    found = report(model, photos, labels, path)
    assert found["trained_on"] is None
    assert "training images of the model are unknown" in page_of(path).text


def test_odd_sets_give_a_page(report, page_of, embedder, photos, labels, tmp_path, path, quick):
    """An absent class, a class with a single image, an unreadable image, one image in total."""
    names = np.array(["cathedral", "flower", "temple"])
    model = make_pipeline(embedder, LinearProbeClassifier())
    model.fit(photos, names[[1] * 12 + [2] * 11 + [0]])
    bad = tmp_path / "bad\x1b[31m<b>.jpg"
    bad.write_text("<html>")
    images = [*photos[:3], str(bad), photos[12]]
    found = report(model, images, ["flower"] * 3 + ["temple"] * 2, path)
    assert found["scored"] == 4
    assert "not an image" in found["failures"][0]["error"]
    page = page_of(path)
    assert "bad\\x1b[31m<b>.jpg" in page.text
    assert "Classes without scored images: cathedral." in page.text
    found = report(model, photos[:1], ["flower"], path)
    assert found["scored"] == 1
    assert any("cannot be split into folds" in words for words in found["warnings"])
    assert found["learning_curve"] is None
    with pytest.raises(InputError, match="None of 1 images could be read"):
        report(model, [str(bad)], ["flower"], path)
    with pytest.raises(InputError, match="classes that the model does not know"):
        report(model, photos[:1], ["wasp"], path)


def test_rows_without_an_embedding_are_named(report, embeddings, photos, labels, path, quick):
    holes = embeddings.copy()
    holes[[3, 15]] = np.nan
    found = report(holes, photos, labels, path)
    assert [failure["path"] for failure in found["failures"]] == [photos[3], photos[15]]
    assert found["scored"] == 22
    single = labels.copy()
    single[0] = "only"
    found = report(embeddings, photos, single, path)
    assert found["scored"] == 23  # never held out


def test_names_leave_out_what_they_share():
    assert short_names(["/a/b/c/1.jpg", "/a/b/d/2.jpg"]) == ["c/1.jpg", "d/2.jpg"]
    assert short_names(["image 0 (ndarray)", "image 1 (ndarray)"])[1] == "image 1 (ndarray)"
    assert short_names(["/a/1.jpg", "b/2.jpg"]) == ["/a/1.jpg", "b/2.jpg"]
    assert short_names([]) == []


def test_the_embedder_of_a_pipeline_is_used(report, photos, labels, path, forwards, model, quick):
    report(model, photos, labels, path)
    assert not forwards  # all came from its cache
    assert isinstance(model[0], ImageEmbedder)
