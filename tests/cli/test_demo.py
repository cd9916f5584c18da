"""``featuretl demo``: every command of the workflow, on digits as image files."""

import json

import pandas as pd
from click.testing import CliRunner
from featuretl_cli.main import cli


def test_the_demo_goes_the_whole_way(tmp_path, forwards):
    folder = tmp_path / "demo"
    result = CliRunner().invoke(cli, ["demo", "--folder", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    trained, evaluated, predicted, explained, exported, reported = map(
        json.loads, result.stdout.splitlines()
    )
    assert trained["images"] == 1347
    assert evaluated["scores"]["accuracy"] >= 0.95
    assert reported["scored"] == 450
    assert reported["scores"]["accuracy"] == evaluated["scores"]["accuracy"]
    assert {found["target"] for found in explained} <= set("0123456789")
    assert exported["difference"] < 1e-4
    # Six commands, one forward pass of each image.
    assert len(forwards) == 1797
    predictions = pd.read_csv(folder / "predictions.csv")
    assert len(predictions) == predicted["images"] == 450
    for file in ("digits.featuretl", "evidence.png", "digits.onnx", "report.html"):
        assert (folder / file).stat().st_size > 1000
