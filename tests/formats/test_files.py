"""Files that earlier versions wrote open, and say the same: models, stores, embeddings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn
from known_rows import present, put
from make_files import N_ROWS, NAMES, images, output_of, rows, small_network, two_views

from featuretl import EmbeddingStore, load_model, read_card, save_model
from featuretl.extraction.outputs import load_embeddings
from featuretl.store import SharedStore
from featuretl.store.exchange import import_shared

FOLDERS = sorted((Path(__file__).parent / "files").iterdir())
MODELS = sorted(path for folder in FOLDERS for path in folder.glob("models/*.featuretl"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_network(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request, tmp_path):
    """A copy of a version's files."""
    return Path(shutil.copytree(request.param, tmp_path / "files"))


@pytest.mark.filterwarnings("ignore::featuretl.exceptions.FeatureTLWarning")
@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_model_predicts_what_it_did(path, weights, tmp_path):
    if path.stem == "svc" and sklearn.__version__ < "1.9":
        pytest.skip("scikit-learn 1.9 fitted this SVC, and earlier versions lack its probabilities")
    of_images = "backbone" in read_card(path)
    own = {"weights": weights} if path.stem.startswith("tuned") else {}
    model = load_model(path, **own)
    if of_images:
        X, tolerance = images()[0][:6], 2e-3  # processors differ
    else:
        X, tolerance = rows()[0][::7], 1e-5
        X = two_views(X) if path.stem.startswith(("attention", "views")) else X
    with np.load(path.parents[1] / "expected.npz") as expected:
        np.testing.assert_allclose(output_of(model, X), expected[path.stem], atol=tolerance)
    save_model(model, tmp_path / "again.featuretl")
    again = output_of(load_model(tmp_path / "again.featuretl", **own), X)
    np.testing.assert_array_equal(again, output_of(model, X))


def test_a_store_has_every_row(folder):
    store = EmbeddingStore(folder / "store")
    assert present(store, range(N_ROWS + 5)) == set(range(N_ROWS))
    assert put(store, range(N_ROWS + 5)) == list(range(N_ROWS, N_ROWS + 5))
    assert EmbeddingStore(folder / "store").info()[0].rows == N_ROWS + 5


def test_a_shared_store_has_every_row(folder, store):
    assert import_shared(store, SharedStore(folder / "shared")) == N_ROWS
    assert present(store, range(N_ROWS)) == set(range(N_ROWS))


def test_embeddings_are_read(folder):
    found = [
        load_embeddings(folder / f"embeddings.{ending}") for ending in ("npy", "npz", "parquet")
    ]
    for one in found:
        assert one.embeddings.dtype == np.float32
        assert one.embeddings.shape == (4, 1280)
        np.testing.assert_array_equal(one.embeddings, found[0].embeddings)
        assert one.paths == NAMES
        assert one.labels == images()[1][:4]
        assert one.metadata["recipe"]["backbone"]["name"] == "tf_efficientnet_lite0"
