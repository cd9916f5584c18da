"""Sections of photographs: evidence, pairs, and what is left out."""

import base64
import io

import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, NearestMeanClassifier
from featuretl.report import galleries


def test_evidence_is_shown_beside_the_mistakes(report, page_of, model, photos, labels, path, quick):
    wrong = labels.copy()
    wrong[[0, 20]] = wrong[[20, 0]]
    report(model, photos, wrong, path)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 4
    assert "evidence for the prediction" in section
    report(model, photos, wrong, path, explain=False)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 2


def test_a_model_without_evidence_is_reported_all_the_same(
    report, page_of, photos, labels, path, quick
):
    embedder = ImageEmbedder("test_vit", weights="random", pooling="avg+max")
    model = make_pipeline(embedder, NearestMeanClassifier()).fit(photos, labels[::-1])
    report(model, photos, labels, path)
    section = page_of(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert "No evidence is shown" in section


def opened(uri):
    head, data = uri.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_thumbnails_are_small_in_order_and_none_for_what_cannot_be_read(photos, tmp_path):
    (tmp_path / "bad.jpg").write_text("<html>")
    images = [photos[0], str(tmp_path / "bad.jpg"), photos[23], np.zeros((10, 40, 3), np.uint8)]
    first, bad, last, dark = galleries.thumbnails(images, side=32)
    assert bad is None
    assert [opened(uri).size for uri in (first, last, dark)] == [(32, 26), (32, 26), (32, 8)]
    assert np.asarray(opened(dark)).max() < 10
    assert galleries.thumbnails([photos[23]], side=32) == [last]


def test_thumbnails_end_where_the_budget_does(photos, monkeypatch):
    monkeypatch.setattr(galleries, "_BATCH", 3)
    whole = galleries.thumbnails(photos[:9], side=48)
    sizes = np.cumsum([len(uri) for uri in whole])
    found = galleries.thumbnails(photos[:9], side=48, budget=sizes[3])
    assert found == [*whole[:4], *[None] * 5]
    assert galleries.thumbnails(photos[:9], budget=0) == [None] * 9
    assert galleries.thumbnails([]) == []


def test_pairs_of_different_labels_are_marked(examined, photos):
    X = np.random.default_rng(0).normal(size=(24, 40))
    X[1], X[3] = X[0], X[2]
    y = ["a", "b", "a", "a", *"ab" * 10]
    found = examined(X, y, images=photos)
    made, left_out = galleries.galleries(found, None, pairs=True)
    pairs = next(gallery for gallery in made if gallery.anchor == "duplicates")
    assert (pairs.n, pairs.kind) == (2, "pairs")
    assert "1 of them have different labels" in pairs.words
    marked, plain = (shot["lines"] for shot in pairs.shots)
    assert marked[1] in (("wrong", "a and b"), ("wrong", "b and a"))
    assert plain[1] == ("", "a")
    assert all(None not in shot["photos"] for shot in pairs.shots)
    assert left_out == []
    made, _ = galleries.galleries(found, None, pairs=False)
    assert [gallery.anchor for gallery in made] == ["mistakes", "label-errors"]


def test_hostile_labels_are_printable(examined):
    X = np.random.default_rng(0).normal(size=(20, 3))
    found = examined(X, ["a\x1b[31m", "b"] * 10)
    (mistakes, *_), _ = galleries.galleries(found, None, pairs=True)
    lines = [text for shot in mistakes.shots for _, text in shot["lines"]]
    assert lines and all(text.isprintable() for text in lines)


def test_regressions_have_their_largest_residuals(examined):
    X = np.random.default_rng(0).normal(size=(30, 40))
    found = examined(X, X[:, 0] ** 2, is_regression=True)
    (gallery, _), left_out = galleries.galleries(found, None, pairs=True)
    assert (gallery.anchor, gallery.n, len(gallery.shots)) == ("mistakes", 24, 24)
    assert gallery.name == "Largest residuals"
    assert left_out == []
