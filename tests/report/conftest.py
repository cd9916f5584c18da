"""Fixtures for tests of reports: photographs, their embeddings, a model, and pages."""

from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from featuretl import ImageEmbedder, LinearProbeClassifier, write_report
from featuretl.report import embedding_map
from featuretl.report.examination import examine
from featuretl.report.subject import subject_of_embeddings


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


@pytest.fixture(scope="package")
def labels(photos):
    return np.array([path.split("/")[-2] for path in photos])


@pytest.fixture(scope="package")
def embedder(shared_cache):
    return ImageEmbedder(cache=shared_cache)


@pytest.fixture(scope="package")
def embeddings(photos, embedder):
    return embedder.transform(photos)


@pytest.fixture(scope="package")
def model(photos, labels, embedder, trained):
    """A pipeline trained on the `trained` rows."""
    return make_pipeline(embedder, LinearProbeClassifier()).fit(
        [photos[i] for i in trained], labels[trained]
    )


@pytest.fixture(scope="package")
def trained():
    """The rows of the first eight crops of each photograph."""
    return [*range(8), *range(12, 20)]


@pytest.fixture(scope="package")
def report():
    """`write_report`, with fewer resamples and folds."""
    return partial(write_report, n_bootstrap=4, cv=2)


@pytest.fixture(scope="package")
def page_of():
    """A function that parses the page in a file."""
    return Page


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


@pytest.fixture
def quick(monkeypatch):
    """Skip t-SNE in tests that do not check the map."""
    monkeypatch.setattr(embedding_map, "map_of", lambda X, random_state: X[:, :2])


@pytest.fixture(scope="package")
def subject_of():
    """A function that makes a Subject of embeddings, with grey images unless others are given."""

    def subject(X, y, images=None, groups=None, is_regression=False):
        images = images or [np.full((8, 8, 3), i % 256, np.uint8) for i in range(len(X))]
        return subject_of_embeddings(np.asarray(X, float), images, y, groups, is_regression, 3, 0)

    return subject


@pytest.fixture(scope="package")
def examined(subject_of):
    """A function that examines embeddings as a Subject."""

    def examination(*args, **options):
        return examine(subject_of(*args, **options), 0, 0.9, 20, lambda step: None)

    return examination
