"""Model cards: what they say, and the images that they list."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest

from featuretl import LinearProbeClassifier, extract, read_card, save_model
from featuretl.backbones.backbone import load_backbone
from featuretl.images.inputs import read
from featuretl.models.card import card_of, data_of, trained_on


def test_the_card_says_what_it_is_given(iris, photos, tmp_path):
    path = tmp_path / "model.featuretl"
    data = data_of(photos, ["a"] * 12 + ["b"] * 12)
    assert data["per_class"] == {"a": 12, "b": 12}
    assert data_of(photos, ["b"] * 24)["sha256"] != data["sha256"]
    save_model(LinearProbeClassifier().fit(*iris), path, card={"data": data, "command": "here"})
    card = read_card(path)
    assert card["data"] == data
    assert card["command"] == "here"
    assert card["classes"] == ["setosa", "versicolor", "virginica"]


def test_the_card_reads_no_file_whose_digest_is_known(photos, store, monkeypatch):
    expected = data_of(photos, range(24))
    monkeypatch.setattr("featuretl.images.decode.RACY_NS", -1)  # the files may be seconds old
    extract(photos, load_backbone("test_resnet", weights="random"), store=store)

    def read(image):
        raise AssertionError(image)

    monkeypatch.setattr("featuretl.models.card.read", read)
    assert data_of(photos, range(24), store) == expected


def test_images_of_the_card_are_recognised(photos):
    card = {"data": data_of(photos[:3], ["a", "b", "a"])}
    keys = np.array([read(photo).key for photo in photos[:5]], "S32")
    assert trained_on(card, keys).tolist() == [True, True, True, False, False]
    assert trained_on(card, keys[:0]).tolist() == []
    assert len(base64.b64decode(card["data"]["contents"])) == 3 * 8
    # A key that ends with zeros is shorter in an array of bytes.
    card = {"data": {"contents": base64.b64encode(b"abc" + bytes(5)).decode()}}
    assert trained_on(card, np.array([b"abc" + bytes(29)], "S32")).tolist() == [True]


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": {"images": 3}},
        {"data": {"contents": 5}},
        {"data": {"contents": "<script>"}},
        {"data": {"contents": "\u00e9"}},
        {"data": {"contents": "YWJj"}},  # three bytes
    ],
    ids=str,
)
def test_a_card_without_a_list_of_images_is_none(card):
    assert trained_on(card, np.array([b"a" * 32])) is None


def test_the_data_depend_on_the_order_of_labels_and_images(photos):
    data = data_of(photos[:2], ["a", "b"])
    assert data_of(photos[1::-1], ["b", "a"])["sha256"] != data["sha256"]
    assert data_of(photos[1::-1], ["b", "a"])["contents"] == data["contents"]
    with pytest.raises(ValueError, match="zip"):
        data_of(photos[:2], ["a"])


def test_labels_are_counted_if_they_are_text(photos):
    lists = data_of(photos[:3], [["b", "a"], [], ("b",)])
    assert lists["per_class"] == {"a": 1, "b": 2}
    assert "per_class" not in data_of(photos[:2], [0.5, 1.5])
    surrogate = data_of(photos[:1], ["\udce9.jpg"])  # the name of a file that is not UTF-8
    assert surrogate["images"] == 1


@pytest.mark.parametrize("score", [np.nan, 0.5])
def test_scores_that_are_not_finite_are_null(score, iris):
    outer = SimpleNamespace(score=score, low=-np.inf, high=0.75, images=9)
    decision = SimpleNamespace(
        outer=outer, strategy="linear", score_name="r2", explain=lambda: "because"
    )
    model = LinearProbeClassifier().fit(*iris)
    model.decision_ = decision
    card = card_of(model)
    json.dumps(card, allow_nan=False)
    expected = {"name": "r2", "score": 0.5, "low": None, "high": 0.75, "images": 9}
    assert card["metrics"] == (None if np.isnan(score) else expected)
    assert (card["strategy"], card["decision"]) == ("linear", "because")


def test_the_card_of_a_pipeline_names_its_weights(pipeline, iris):
    card = card_of(pipeline)
    assert (card["model"], card["backbone"]) == ("Pipeline", "test_resnet")
    assert card["weights"] == pipeline[0].recipe()["backbone"]["tensors"]
    assert card["classes"] == ["a", "b"]
    assert "backbone" not in card_of(LinearProbeClassifier().fit(*iris))


@pytest.mark.parametrize("data", [None, 3, {}, {"contents": "é"}, {"contents": [1]}, {"contents": "AA=="}])  # fmt: skip
def test_a_card_that_is_no_card_knows_nothing(data):
    assert trained_on({"data": data}, np.zeros(3, "S32")) is None


def test_a_card_knows_its_images_again(photos):
    card = {"data": data_of(photos[:5], ["a"] * 5)}
    keys = np.array([read(photo).key for photo in photos], "S32")
    assert trained_on(card, keys).tolist() == [True] * 5 + [False] * 19
    assert len(card["data"]["contents"]) < 60
