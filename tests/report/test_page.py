"""write_report: what the page says and loads, errors, and the same page again."""

import json
import sys

import pytest

from featuretl import LinearProbeClassifier
from featuretl.exceptions import FeatureTLError, InputError, ParameterError, StoreError
from featuretl.models.card import data_of


def test_a_page_loads_nothing_and_says_what_its_scores_are_of(
    report, page_of, trained, model, photos, labels, path
):
    rows = [i for i in range(24) if i not in trained]
    card = {"data": data_of([photos[i] for i in trained], labels[trained]), "backbone": "b"}
    images = [photos[i] for i in rows]
    found = report(model, images, labels[rows], path, card=card)
    page = page_of(path)
    assert {"summary", "map", "classes", "curves", "mistakes", "label-errors", "duplicates", "about"} <= page.ids  # fmt: skip
    assert all(link.startswith(("data:", "#")) for link in page.loaded)
    assert "none of the 8 images is a training image" in page.text
    assert found["trained_on"] == 0
    assert found["scored"] == 8
    assert found["scores"]["accuracy"] == model.score(images, labels[rows])
    assert f"{found['scores']['accuracy']:.3f}" in page.text
    assert "not trained on these images" in found["label_errors_by"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_page_is_the_same_again(report, embeddings, photos, labels, path):
    report(embeddings, photos, labels, path)
    first = path.read_text()
    report(embeddings, photos, labels, path)
    assert path.read_text() == first


def test_parameters_are_checked(report, embeddings, model, photos, labels, path, tmp_path):
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


def test_a_disk_that_is_full_is_one_sentence(
    report, embeddings, photos, labels, path, monkeypatch, quick
):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featuretl.report.page.replace_file", full)
    with pytest.raises(StoreError, match="No space left on device"):
        report(embeddings, photos, labels, path)


def test_without_jinja_the_extra_is_named(report, embeddings, photos, labels, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(FeatureTLError, match=r"pip install 'featuretl\[report\]'"):
        report(embeddings, photos, labels, path)
