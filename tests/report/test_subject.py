"""Which images are scored, and which are named instead."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featuretl import FineTuneClassifier, ImageEmbedder, LinearProbeClassifier
from featuretl.exceptions import InputError
from featuretl.models.card import data_of
from featuretl.report.subject import embedder_of, short_names, subject_of_embeddings


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


@pytest.mark.parametrize(
    "X, images, message",
    [
        (np.zeros((2, 3), int), 2, r"got int64 of shape \(2, 3\)"),
        (np.zeros(2), 2, r"got float64 of shape \(2,\)"),
        (np.zeros((2, 3)), 1, "got 1 for 2"),
        (np.full((2, 3), np.nan), 2, "None of 2 images"),
    ],
)
def test_what_are_no_embeddings_is_refused(X, images, message):
    pixels = [np.zeros((8, 8, 3), np.uint8)] * images
    with pytest.raises(InputError, match=message):
        subject_of_embeddings(X, pixels, ["a", "b"], None, False, 2, 0)


def test_only_scored_images_are_wrong(subject_of):
    y = ["a", "b"] * 6 + ["c"]  # "c" is never held out
    subject = subject_of(np.random.default_rng(0).normal(size=(13, 3)), y)
    assert not subject.scored[12] and subject.predicted[12] != "c"
    assert not subject.is_wrong[12]
    np.testing.assert_array_equal(subject.is_wrong[:12], (subject.predicted != y)[:12])
    numbers = subject_of(np.eye(6), np.arange(6.0), is_regression=True)
    assert not numbers.is_wrong.any()


def test_numbers_are_shortened_and_classes_are_not(subject_of):
    numbers = subject_of(np.eye(6), np.arange(6.0), is_regression=True)
    assert numbers.text_of(0.123456) == "0.1235"
    classes = subject_of(np.eye(6), list("ababab"))
    assert classes.text_of("a long name of a class") == "a long name of a class"


def test_copies_join_the_groups_of_both(subject_of):
    X = np.random.default_rng(0).normal(size=(8, 3))
    X[1] = X[0]
    groups = subject_of(X, list("abababab"), groups=[0, 1, 2, 3, 4, 5, 1, 7]).groups
    assert groups[0] == groups[1] == groups[6]
    assert len(set(groups.tolist())) == 6
    assert subject_of(X[1:], list("abababa")).groups is None


def test_an_embedder_of_a_tuned_network_has_its_pretrained_backbone(photos, labels, model):
    tuned = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, learning_rate=0.003, epochs=1,
        augment="none", random_state=0, cache=None,
    ).fit(photos, labels)  # fmt: skip
    embedder = embedder_of(tuned, None)
    assert (embedder.backbone, embedder.weights) == ("test_resnet", "random")
    assert embedder_of(model, None) is model[0]
