"""``featuretl demo``: every command of the workflow, on digits as image files."""

import json

import pandas as pd
from click.testing import CliRunner
from featuretl_cli.main import cli
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from featuretl import EmbeddingStore


def test_the_demo_goes_the_whole_way(tmp_path, cache, monkeypatch):
    digits = load_digits()
    fewer = Bunch(images=digits.images[:180], target=digits.target[:180])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: fewer)
    folder = tmp_path / "demo"
    result = CliRunner().invoke(cli, ["demo", "--folder", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    trained, evaluated, predicted, explained, exported, reported = map(
        json.loads, result.stdout.splitlines()
    )
    assert trained["images"] == 135
    assert evaluated["scores"]["accuracy"] >= 0.75
    assert reported["scored"] == 45
    assert reported["scores"]["accuracy"] == evaluated["scores"]["accuracy"]
    assert {found["target"] for found in explained} <= set("0123456789")
    assert exported["difference"] < 1e-4
    assert max(space.rows for space in EmbeddingStore(cache).info()) >= 180
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == predicted["images"] == 45
    for file in ("digits.featuretl", "evidence.png", "digits.onnx", "report.html"):
        assert (folder / file).stat().st_size > 1000
