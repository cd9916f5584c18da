"""The map: places, colours, captions, and a budget for its photographs."""

import json
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featuretl import FineTuneClassifier
from featuretl.report import embedding_map, galleries


def test_photographs_are_budgeted_and_what_is_left_out_is_said(
    report, page_of, path, monkeypatch, quick
):
    digits = load_digits()
    images = [(16 * image).clip(0, 255).astype(np.uint8) for image in digits.images[:300]]
    monkeypatch.setattr(embedding_map, "MOST_ON_MAP", 200)
    monkeypatch.setattr(embedding_map, "BUDGET", 20_000)
    monkeypatch.setattr(galleries, "_SHOWN", 2)
    monkeypatch.setattr(galleries, "_BATCH", 50)
    found = report(digits.data[:300], images, digits.target[:300], path)
    page = page_of(path)
    assert "200 of the 300 images" in page.text
    assert "have no photograph" in page.text
    assert any(line.startswith("Mistakes: 2 of ") for line in found["left_out"])
    data = json.loads(page.source.split('id="map-data">')[1].split("</script>")[0])
    assert len(data["x"]) == 200
    spent = sum(len(uri or "") for uri in data["thumbs"])
    assert 15_000 < spent <= 20_000


def test_a_tuned_network_is_drawn_by_its_own_embeddings(
    report, photos, labels, path, shared_cache, monkeypatch
):
    drawn = []
    place = lambda X, random_state: drawn.append(X) or X[:, :2]  # noqa: E731
    monkeypatch.setattr(embedding_map, "map_of", place)
    model = FineTuneClassifier(
        "test_resnet", weights="random", n_blocks=1, learning_rate=0.003, epochs=1,
        augment="none", random_state=0, cache=shared_cache,
    ).fit(photos, labels)  # fmt: skip
    found = report(model, photos, labels, path, cache=shared_cache)
    assert found["scores"]["accuracy"] == model.score(photos, labels)
    np.testing.assert_allclose(drawn[0], model.transform(photos), atol=1e-6)


def test_a_class_keeps_its_place_in_the_legend():
    classes = np.array(["a", "b\n", "c", "d"])
    entries, group = embedding_map._groups(np.array(["d", "b\n", "d"]), classes)
    assert [entry["name"] for entry in entries] == [r"b\n", "d"]
    assert group.tolist() == [1, 0, 1]


@pytest.mark.parametrize("n", [10, 11, 200])
def test_every_class_has_its_own_colour(n):
    classes = np.arange(n)
    entries, group = embedding_map._groups(classes, classes)
    colours = [entry["colour"] for entry in entries]
    assert len(set(colours)) == n
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    assert group.tolist() == list(range(n))


def test_numbers_are_grouped_by_fifths():
    y = np.random.default_rng(0).permutation(100) / 10
    entries, group = embedding_map._groups(y, None)
    assert np.bincount(group).tolist() == [20] * 5
    assert entries[0]["name"].startswith("0 to ") and entries[4]["name"].endswith(" to 9.9")
    assert y[group == 0].max() < y[group == 1].min()
    entries, group = embedding_map._groups(np.full(4, 7.0), None)
    assert [entry["name"] for entry in entries] == ["7 to 7"]
    assert group.tolist() == [0] * 4


def test_places_fill_the_unit_square(examined, monkeypatch):
    found = examined(np.random.default_rng(0).normal(size=(12, 3)), list("ab" * 6))
    line = np.column_stack([np.arange(-4, 8), np.full(12, 3)])
    monkeypatch.setattr(embedding_map, "map_of", lambda X, random_state: line)
    section, left_out = embedding_map.map_section(found, 0)
    assert (min(section["data"]["x"]), max(section["data"]["x"])) == (0, 1)
    assert section["data"]["y"] == [0.5] * 12
    assert left_out == []
    assert section["n_wrong"] == sum(section["data"]["wrong"])
    assert ("Rings" in section["words"]) == (section["n_wrong"] > 0)


def test_photographs_keep_their_order(photos, tmp_path):
    gone = str(tmp_path / "gone.jpg")
    found = embedding_map._photographs([photos[0], gone, photos[1]], 3)
    assert found[1] is None
    alone = [embedding_map._photographs([photo], 0)[0] for photo in photos[:2]]
    assert [found[0], found[2]] == alone


def test_the_captions_say_what_was_not_scored(subject_of):
    y = ["a", "b"] * 6 + ["c"]  # never held out
    subject = subject_of(np.random.default_rng(0).normal(size=(13, 3)), y)
    captions = [embedding_map._prediction_text(subject, i) for i in range(13)]
    assert captions[12] == "not scored"
    assert all(re.fullmatch(r"predicted [ab] \([01]\.\d\d\)", text) for text in captions[:12])
