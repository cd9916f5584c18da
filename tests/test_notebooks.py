"""In a notebook: results show as tables and pictures, progress shows without a warning."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = [
    "import featuretl",
    "photos = featuretl.load_image_folder('photos')\nphotos",
    "extraction = featuretl.extract(photos.data)\nextraction",
    "from sklearn.pipeline import make_pipeline\n"
    "embedder = featuretl.ImageEmbedder(verbose=1, views=2)\n"
    "model = make_pipeline(embedder, featuretl.LinearProbeClassifier())\n"
    "model.fit(photos.data, photos.target)",
    "featuretl.explain(model, photos.data[:1])[0]",
    "featuretl.evaluate_model(model, photos.data, photos.target, n_bootstrap=20)",
    "featuretl.EmbeddingStore()",
    "chosen = featuretl.TransferClassifier('linear', views=1) if False else "
    "featuretl.TransferClassifier('linear').fit(photos.data, photos.target)\nchosen.decision_",
]


@pytest.fixture(scope="module")
def outputs(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict]]:
    """The outputs of each cell."""
    place = tmp_path_factory.mktemp("notebook")
    (place / "photos").symlink_to(photo_folder)
    cells = [nbformat.v4.new_code_cell(f"{code}") for code in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATURETL_CACHE", str(place / "cache"))
        NotebookClient(notebook, resources={"metadata": {"path": str(place)}}).execute()
    return [cell.outputs for cell in notebook.cells]
