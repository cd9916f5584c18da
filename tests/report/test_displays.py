"""Displays follow the API of scikit-learn's displays."""

import sys

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from featuretl.exceptions import FeatureTLError
from featuretl.report import ClassScoresDisplay, EmbeddingMapDisplay, ImageGridDisplay, class_scores
from featuretl.report.displays import map_of

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HOSTILE = "</script>$\\frac{$\n\x1b[31m"


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def test_a_map_has_a_colour_for_each_class(iris):
    X, y = iris
    ax = plt.subplots()[1]
    display = EmbeddingMapDisplay.from_embeddings(X, y, ax=ax, s=3)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    drawn = [scatter.get_offsets().shape[0] for scatter in display.scatters_]
    assert drawn == [50, 50, 50]
    assert display.places.min() >= 0
    assert display.places.max() <= 1


def test_like_lies_near_like(iris):
    X, y = iris
    places = map_of(X)
    setosa, others = places[y == 0], places[y > 0]
    within = np.linalg.norm(setosa - setosa.mean(axis=0), axis=1).max()
    assert np.linalg.norm(others - setosa.mean(axis=0), axis=1).min() > within
    np.testing.assert_array_equal(places, map_of(X))


@pytest.mark.parametrize("X", [np.zeros((0, 5)), np.ones((1, 5)), np.ones((40, 5)), np.eye(3), np.eye(12)])  # fmt: skip
def test_a_map_of_little_is_a_map(X):
    places = map_of(X)
    assert places.shape == (len(X), 2)
    assert np.isfinite(places).all()


def test_a_map_of_images_and_numbers(photos, embedder):
    display = EmbeddingMapDisplay.from_estimator(embedder, photos[:12], np.linspace(0, 1, 12))
    assert len(display.scatters_) == 1


def test_scores_of_classes_are_drawn(iris):
    X, y = iris
    head = LogisticRegression(C=0.01, max_iter=500).fit(X, y)
    display = ClassScoresDisplay.from_estimator(head, X, y, score="precision")
    points = display.errorbar_.lines[0].get_xdata()
    np.testing.assert_allclose(points, class_scores(y, head.predict(X))["precision"])
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["0", "1", "2"]


def test_names_are_text(photos):
    display = ClassScoresDisplay.from_predictions([HOSTILE, "b"], [HOSTILE, "b"])
    display.figure_.canvas.draw()
    assert "\n" not in display.ax_.get_yticklabels()[0].get_text()
    grid = ImageGridDisplay(photos[:1], [HOSTILE]).plot()
    grid.figure_.canvas.draw()
    assert "\x1b" not in grid.ax_.get_title()


def test_mistakes_are_shown_with_their_photographs(photos, labels, model):
    wrong = labels.copy()
    wrong[[0, 20]] = wrong[[20, 0]]
    display = ImageGridDisplay.from_estimator(model, photos, wrong, n_columns=2)
    assert display.axes_.shape == (1, 2)
    assert sorted(display.images) == sorted([photos[0], photos[20]])
    assert all("predicted" in ax.get_title() for ax in display.axes_.flat)
    assert display.axes_[0, 0].images[0].get_array().shape == (97, 120, 3)


def test_label_errors_and_duplicates_are_shown(photos, labels, model, embeddings):
    proba = model.predict_proba(photos)
    wrong = labels.copy()
    wrong[proba[:, 0].argmax()] = "temple"  # the most confident flower
    display = ImageGridDisplay.from_label_errors(photos, wrong, proba, classes=model.classes_)
    (title,) = display.titles
    assert "temple" in title and "flower" in title
    twice = np.concatenate([embeddings, embeddings[:1]])
    display = ImageGridDisplay.from_near_duplicates([*photos, photos[0]], twice, threshold=0.999)
    assert display.images == [photos[0], photos[0]]
    assert display.titles[0] == "similarity 1.000"


def test_a_grid_goes_into_an_axes_and_names_what_it_cannot_open(photos, tmp_path):
    ax = plt.subplots()[1]
    display = ImageGridDisplay([photos[0], str(tmp_path / "gone.jpg")], ["a", "b"]).plot(ax=ax)
    assert display.figure_ is ax.figure
    assert "gone.jpg" in display.axes_.flat[1].get_title()


def test_without_matplotlib_the_extra_is_named(monkeypatch, iris):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(FeatureTLError, match=r"pip install 'featuretl\[plot\]'"):
        EmbeddingMapDisplay.from_embeddings(*iris)
