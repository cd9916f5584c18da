"""write_report: which images are scored, unusual data, limits on size, errors."""

import json
import sys
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from featuretl import (
    FineTuneClassifier,
    ImageEmbedder,
    LinearProbeClassifier,
    NearestMeanClassifier,
    write_report,
)
from featuretl.exceptions import FeatureTLError, InputError, ParameterError, StoreError
from featuretl.images.inputs import read
from featuretl.models.card import data_of, trained_on
from featuretl.report import embedding_map, galleries
from featuretl.report.subject import short_names

report = partial(write_report, n_bootstrap=4, cv=2)


class Page(HTMLParser):
    """Text, ids and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.text, self.ids, self.loaded = "", set(), []
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.loaded.append(value)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


@pytest.fixture
def quick(monkeypatch):
    """Skip t-SNE in tests that do not check the map."""
    monkeypatch.setattr(embedding_map, "map_of", lambda X, random_state: X[:, :2])


TRAINED = [*range(8), *range(12, 20)]


def test_a_page_loads_nothing_and_says_what_its_scores_are_of(model, photos, labels, path):
    rows = [i for i in range(24) if i not in TRAINED]
    card = {"data": data_of([photos[i] for i in TRAINED], labels[TRAINED]), "backbone": "b"}
    images = [photos[i] for i in rows]
    found = report(model, images, labels[rows], path, card=card)
    page = Page(path)
    assert {"summary", "map", "classes", "curves", "mistakes", "label-errors", "duplicates", "about"} <= page.ids  # fmt: skip
    assert all(link.startswith(("data:", "#")) for link in page.loaded)
    assert "none of the 8 images is a training image" in page.text
    assert found["trained_on"] == 0
    assert found["scored"] == 8
    assert found["scores"]["accuracy"] == model.score(images, labels[rows])
    assert f"{found['scores']['accuracy']:.3f}" in page.text
    assert "not trained on these images" in found["label_errors_by"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_images_of_training_are_not_scored(model, photos, labels, path, quick):
    card = {"data": data_of([photos[i] for i in TRAINED], labels[TRAINED])}
    found = report(model, photos, labels, path, card=card)
    assert (found["trained_on"], found["scored"]) == (16, 8)
    assert "trained on 16 of these 24 images" in Page(path).text
    assert "out-of-fold" in found["label_errors_by"]
    seen = [photos[i] for i in TRAINED]
    found = report(model, seen, labels[TRAINED], path, card=card)
    assert (found["trained_on"], found["scored"]) == (16, 16)
    assert "trained on all of these 16 images" in found["warnings"][0]
    assert "training accuracy" in Page(path).text


def test_it_says_when_it_does_not_know(model, photos, labels, path, quick):
    found = report(model, photos, labels, path)
    assert found["trained_on"] is None
    assert "training images of the model are unknown" in Page(path).text


@pytest.mark.parametrize("data", [None, 3, {}, {"contents": "é"}, {"contents": [1]}, {"contents": "AA=="}])  # fmt: skip
def test_a_card_that_is_no_card_knows_nothing(data):
    assert trained_on({"data": data}, np.zeros(3, "S32")) is None


def test_a_card_knows_its_images_again(photos, labels):
    card = {"data": data_of(photos[:5], labels[:5])}
    keys = np.array([read(photo).key for photo in photos], "S32")
    assert trained_on(card, keys).tolist() == [True] * 5 + [False] * 19
    assert len(card["data"]["contents"]) < 60


def test_leaks_from_training_are_found(model, photos, labels, tmp_path, path, quick):
    leaked = tmp_path / "leaked.png"
    pixels = np.asarray(Image.open(photos[0]))
    Image.fromarray((pixels * 0.98).astype(np.uint8)).save(leaked)
    train = [photos[i] for i in TRAINED], labels[TRAINED]
    images = [str(leaked), photos[20]]
    found = report(model, images, ["flower", "temple"], path, train=train, threshold=0.97)
    assert [(row["first"], row["second"]) for row in found["leaks"]] == [(str(leaked), photos[0])]
    assert "leaks" in Page(path).ids
    assert found["learning_curve"]["measured_on"] == "these images, over 5 draws of training images"
    assert found["trained_on"] == 0
    again = report(model, photos, labels, path, train=train)
    assert again["trained_on"] == 16


def test_copies_share_a_fold_and_are_counted(embeddings, photos, path, quick):
    twice, coin = [*range(24), *range(24)], np.random.default_rng(0).integers(0, 2, 48).astype(str)
    found = report(embeddings[twice], [photos[i] for i in twice], coin, path, cv=5)
    assert found["scores"]["accuracy"] < 0.7
    assert found["near_duplicates_across_folds"] == 0
    assert "24 of these 48 images are copies of others" in found["warnings"][0]
    assert "copies share a fold" in Page(path).text


def test_a_class_in_a_single_group_is_not_called_wrong(photos, path, quick):
    y = np.arange(160) % 4
    X = np.random.default_rng(0).normal(size=(160, 8)) + 4 * np.eye(8)[y]
    groups = np.where(y == 3, 99, np.arange(160) // 4 % 10)
    found = report(
        X, [photos[i % 24] for i in range(160)], y.astype(str), path, groups=groups, cv=5
    )
    assert found["scored"] == 120
    assert found["scores"]["accuracy"] > 0.95
    assert len(found["label_errors"]) < 5
    assert "never holds out 1 classes that lie in a single group" in found["scores_are"]


def test_embeddings_are_judged_out_of_fold(embeddings, photos, labels, path, quick):
    wrong = labels.copy()
    wrong[2] = "temple"
    found = report(embeddings, photos, wrong, path)
    assert found["scored"] == 24
    assert found["mistakes"][0]["image"] == photos[2]
    assert found["label_errors"][0]["image"] == photos[2]
    assert found["label_errors"][0]["suggestion"] == "flower"
    assert found["learning_curve"]["sizes"] == [1, 2, 6]
    assert "out-of-fold" in Page(path).text
    twice = [*range(24), *range(24)]
    like = embeddings[twice] * np.repeat([1, 1.001], 24)[:, None]
    found = report(like, [photos[i] for i in twice], labels[twice], path)
    assert found["near_duplicates_across_folds"] > 0
    assert not found["warnings"]
    groups = np.tile(np.arange(24), 2)
    found = report(
        like, [photos[i] for i in twice], labels[twice], path, groups=groups,
        threshold=0.999,
    )  # fmt: skip
    assert len(found["near_duplicates"]) == 24
    assert found["near_duplicates_across_folds"] == 0


def test_numbers_have_residuals_and_no_classes(embeddings, embedder, photos, path, quick):
    y = np.linspace(0, 1, 24)
    found = report(embeddings, photos, y, path, task="regression")
    page = Page(path)
    assert "residuals" in page.ids
    assert not {"classes", "label-errors"} & page.ids
    assert found["task"] == "regression"
    assert found["per_class"] is None
    assert abs(found["mistakes"][0]["error"]) >= abs(found["mistakes"][1]["error"])
    model = make_pipeline(embedder, Ridge()).fit(photos[:16], y[:16])
    found = report(model, photos[16:], y[16:], path)
    assert found["learning_curve"] is None or found["learning_curve"]["score"] == "R2"
    assert "R2" in Page(path).text


def test_a_model_without_probabilities(embedder, photos, labels, path, quick):
    model = make_pipeline(embedder, LinearSVC()).fit(photos, 1 - (labels == "temple"))
    found = report(model, photos, [str(int(x != "temple")) for x in labels], path)
    assert "log_loss" not in found["scores"]
    assert "Calibration" not in Page(path).text


def test_odd_sets_give_a_page(embedder, photos, labels, tmp_path, path, quick):
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
    page = Page(path)
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


def test_rows_without_an_embedding_are_named(embeddings, photos, labels, path, quick):
    holes = embeddings.copy()
    holes[[3, 15]] = np.nan
    found = report(holes, photos, labels, path)
    assert [failure["path"] for failure in found["failures"]] == [photos[3], photos[15]]
    assert found["scored"] == 22
    single = labels.copy()
    single[0] = "only"
    found = report(embeddings, photos, single, path)
    assert found["scored"] == 23  # never held out


def test_photographs_are_budgeted_and_what_is_left_out_is_said(path, monkeypatch, quick):
    digits = load_digits()
    images = [(16 * image).clip(0, 255).astype(np.uint8) for image in digits.images[:300]]
    monkeypatch.setattr(embedding_map, "MOST_ON_MAP", 200)
    monkeypatch.setattr(embedding_map, "BUDGET", 20_000)
    monkeypatch.setattr(galleries, "_SHOWN", 2)
    monkeypatch.setattr(galleries, "_BATCH", 50)
    found = report(digits.data[:300], images, digits.target[:300], path)
    page = Page(path)
    assert "200 of the 300 images" in page.text
    assert "have no photograph" in page.text
    assert any(line.startswith("Mistakes: 2 of ") for line in found["left_out"])
    data = json.loads(page.source.split('id="map-data">')[1].split("</script>")[0])
    assert len(data["x"]) == 200
    spent = sum(len(uri or "") for uri in data["thumbs"])
    assert 15_000 < spent <= 20_000


def test_many_classes_are_cut_and_said(path, quick):
    rng = np.random.default_rng(0)
    y = np.repeat([f"{i:03d}" for i in range(70)], 3)
    X = np.repeat(rng.normal(size=(70, 20)), 3, axis=0) + 0.3 * rng.normal(size=(210, 20))
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(210)]
    report(X, images, y, path)
    assert "60 of 70 classes are shown" in Page(path).text


def test_evidence_is_shown_beside_the_mistakes(model, photos, labels, path, quick):
    wrong = labels.copy()
    wrong[[0, 20]] = wrong[[20, 0]]
    report(model, photos, wrong, path)
    section = Page(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 4
    assert "evidence for the prediction" in section
    report(model, photos, wrong, path, explain=False)
    section = Page(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert section.count("<img") == 2


def test_a_model_without_evidence_is_reported_all_the_same(photos, labels, path, quick):
    embedder = ImageEmbedder("test_vit", weights="random", pooling="avg+max")
    model = make_pipeline(embedder, NearestMeanClassifier()).fit(photos, labels[::-1])
    report(model, photos, labels, path)
    section = Page(path).source.split('id="mistakes"')[1].split("</section>")[0]
    assert "No evidence is shown" in section


def test_the_page_is_the_same_again(embeddings, photos, labels, path):
    report(embeddings, photos, labels, path)
    first = path.read_text()
    report(embeddings, photos, labels, path)
    assert path.read_text() == first


def test_parameters_are_checked(embeddings, model, photos, labels, path, tmp_path):
    for options, message in [
        ({"n_bootstrap": -1}, "'n_bootstrap' parameter"),
        ({"cv": 1}, "'cv' parameter of write_report"),
        ({"threshold": 2}, "'threshold' parameter"),
        ({"task": "ranking"}, "'task' parameter"),
        ({"train": (photos, labels)}, "'train' parameter"),
    ]:
        with pytest.raises(ParameterError, match=message):
            report(embeddings, photos, labels, path, **options)
    with pytest.raises(ParameterError, match=r"must end in \.html"):
        report(embeddings, photos, labels, tmp_path / "report.pdf")
    with pytest.raises(InputError, match="images must have one entry per embedding; got 3 for 24"):
        report(embeddings, photos[:3], labels, path)
    with pytest.raises(InputError, match="got a LinearProbeClassifier"):
        report(LinearProbeClassifier(), photos, labels, path)
    with pytest.raises(InputError, match="two classes"):
        report(embeddings[:12], photos[:12], labels[:12], path)
    assert not path.exists()


def test_a_disk_that_is_full_is_one_sentence(embeddings, photos, labels, path, monkeypatch, quick):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featuretl.report.page.replace_file", full)
    with pytest.raises(StoreError, match="No space left on device"):
        report(embeddings, photos, labels, path)


def test_without_jinja_the_extra_is_named(embeddings, photos, labels, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(FeatureTLError, match=r"pip install 'featuretl\[report\]'"):
        report(embeddings, photos, labels, path)


def test_names_leave_out_what_they_share():
    assert short_names(["/a/b/c/1.jpg", "/a/b/d/2.jpg"]) == ["c/1.jpg", "d/2.jpg"]
    assert short_names(["image 0 (ndarray)", "image 1 (ndarray)"])[1] == "image 1 (ndarray)"
    assert short_names(["/a/1.jpg", "b/2.jpg"]) == ["/a/1.jpg", "b/2.jpg"]
    assert short_names([]) == []


def test_a_tuned_network_is_drawn_by_its_own_embeddings(
    photos, labels, path, shared_cache, monkeypatch
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


def test_the_embedder_of_a_pipeline_is_used(photos, labels, path, forwards, model, quick):
    report(model, photos, labels, path)
    assert not forwards  # all came from its cache
    assert isinstance(model[0], ImageEmbedder)


def test_all_intervals_of_a_report_know_groups(embeddings, photos, labels, path, quick):
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
