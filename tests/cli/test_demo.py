"""``featuretl demo``: every command of the workflow, on digits as image files."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from featuretl import EmbeddingStore


@pytest.fixture
def few_digits(monkeypatch):
    """Replace the 1,797 images by seven images of each digit that the demo explains."""
    digits = load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == digit)[:7] for digit in (0, 3, 5, 8)])
    few = Bunch(images=digits.images[rows], target=digits.target[rows])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits", "exported_once")
def test_the_demo_goes_the_whole_way(tmp_path, cache):
    folder = tmp_path / "demo"
    result = CliRunner().invoke(cli, ["demo", "--folder", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    trained, evaluated, predicted = facts["train"], facts["evaluate"], facts["predict"]
    explained, exported, reported = facts["explain"], facts["export"], facts["report"]
    assert trained["images"] == 21
    assert evaluated["scores"]["accuracy"] >= 0.75
    assert reported["scored"] == 7
    assert reported["scores"]["accuracy"] == evaluated["scores"]["accuracy"]
    assert {found["target"] for found in explained["explanations"]} <= set("0358")
    assert exported["difference"] < 1e-4
    assert max(space.rows for space in EmbeddingStore(cache).info()) >= 28
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == predicted["images"] == 7
    for file in ("digits.featuretl", "evidence.png", "digits.onnx", "report.html"):
        assert (folder / file).stat().st_size > 1000
