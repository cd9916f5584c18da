"""The map: places, colours, captions, and a budget for its photographs."""

import json

import numpy as np
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
