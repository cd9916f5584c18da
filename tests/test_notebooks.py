"""In a notebook: results show as tables and pictures, progress shows without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="an extra: test")
NotebookClient = pytest.importorskip("nbclient", reason="an extra: test").NotebookClient
pytest.importorskip("ipykernel", reason="an extra: test")

CELLS = {
    "photos": "import featuretl\nphotos = featuretl.load_image_folder('photos')\nphotos",
    "extraction": "featuretl.extract(photos.data)",
    "model": "from sklearn.pipeline import make_pipeline\n"
    "embedder = featuretl.ImageEmbedder(pooling='max', verbose=1)\n"
    "model = make_pipeline(embedder, featuretl.LinearProbeClassifier())\n"
    "model.fit(photos.data, photos.target)",
    "explanation": "featuretl.explain(model, photos.data[0])[0]",
    "scores": "featuretl.evaluate_model(model, photos.data, photos.target, n_bootstrap=20)",
    "store": "featuretl.EmbeddingStore()",
    "decision": "featuretl.TransferClassifier('linear').fit(photos.data, photos.target).decision_",
}


@pytest.fixture(scope="module")
def outputs(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The outputs of each cell."""
    place = tmp_path_factory.mktemp("notebook")
    (place / "photos").symlink_to(photo_folder)
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATURETL_CACHE", str(place / "cache"))
        NotebookClient(notebook, resources={"metadata": {"path": str(place)}}).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def shown(outputs: list[dict], kind: str) -> str:
    """What a cell shows as its result."""
    (result,) = [output for output in outputs if output.output_type == "execute_result"]
    return result.data[kind]


@pytest.mark.parametrize(
    ("cell", "fact"),
    [
        ("photos", "24"),
        ("extraction", "24 x 1,280"),
        ("model", "sk-"),
        ("explanation", "data:image/png;base64"),
        ("scores", "accuracy"),
        ("store", "tf_efficientnet_lite0"),
        ("decision", "linear"),
    ],
)
def test_results_show_as_html_and_as_a_few_lines_of_text(outputs, cell, fact):
    assert fact in shown(outputs[cell], "text/html")
    assert len(shown(outputs[cell], "text/plain").splitlines()) <= 25


def test_progress_shows_without_a_warning(outputs):
    streams = [one for one in outputs["model"] if one.output_type == "stream"]
    text = "".join(one.text for one in streams)
    assert "24/24" in text
    assert "warning" not in text.lower()
