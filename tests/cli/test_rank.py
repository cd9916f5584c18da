"""``featuretl rank``: the table, JSON and file hold what rank_backbones returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from featuretl_cli.main import cli

from featuretl import load_image_folder, rank_backbones


@pytest.fixture(autouse=True)
def _not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featuretl.ranking.speed.time_extraction", lambda *args, **how: 50.0)


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli, ["rank", *map(str, args)])


def test_a_folder_is_ranked_as_in_python(photo_folder: Path, tmp_path: Path, forwards) -> None:
    backbones = ["--backbones", "tf_efficientnet_lite1", "--method", "knn"]
    result = run(photo_folder, *backbones, "--json", "-o", tmp_path / "table.csv")
    assert result.exit_code == 0, result.stderr
    photos = load_image_folder(photo_folder)
    frame = rank_backbones(photos.data, photos.target, ["tf_efficientnet_lite1"], method="knn")
    found = json.loads(result.stdout)
    assert found == {"method": "knn", "backbones": frame.to_dict(orient="records")}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), frame)
    assert len(forwards) == 24
    text = run(photo_folder, *backbones).stdout
    for word in ("tf_efficientnet_lite1", "95% interval", "50.0", "20.0", "4.1 M", "1280"):
        assert word in text
    assert len(forwards) == 24


def test_numbers_of_a_manifest_are_ranked(photos: list[str], tmp_path: Path) -> None:
    rows = [f"{path},{i / 7}" for i, path in enumerate(photos)]
    (tmp_path / "m.csv").write_text("path,weight\n" + "\n".join(rows))
    result = run(
        tmp_path / "m.csv", "--label-column", "weight", "--task", "regression", "--cv", 3,
        "--backbones", "tf_efficientnet_lite1", "--method", "logme", "--json", "--no-cache",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["backbones"][0]["images"] == 24


def test_a_column_of_groups_keeps_them_together(photos: list[str], tmp_path: Path) -> None:
    groups = [i // 3 for i in range(24)]
    labels = [Path(path).parent.name for path in photos]
    rows = [
        f"{path},{label},g{group}"
        for path, label, group in zip(photos, labels, groups, strict=True)
    ]
    (tmp_path / "m.csv").write_text("path,label,who\n" + "\n".join(rows))
    backbones = ["--backbones", "tf_efficientnet_lite1", "--method", "knn"]
    result = run(tmp_path / "m.csv", "--groups", "who", *backbones, "--json")
    assert result.exit_code == 0, result.stderr
    names = ["tf_efficientnet_lite1"]
    grouped = rank_backbones(photos, labels, names, method="knn", groups=groups)
    alone = rank_backbones(photos, labels, names, method="knn")
    found = json.loads(result.stdout)["backbones"][0]
    assert found["high"] - found["low"] == pytest.approx((grouped["high"] - grouped["low"])[0])
    assert (grouped["low"] != alone["low"]).all()


@pytest.mark.parametrize(
    ("args", "code", "named"),
    [
        (["--method", "log-me"], 2, "'log-me' is not one of 'probe'"),
        (["--backbones", "tf_efficientnet_lite11"], 1, "'tf_efficientnet_lite11'"),
        (["-o", "nowhere/table.csv"], 1, "nowhere"),
        (["-o", "table.txt"], 1, ".csv"),
        (["--task", "regression"], 1, "24 of 24"),
    ],
)
def test_mistakes_are_one_sentence(photo_folder: Path, args, code, named) -> None:
    result = run(photo_folder, *args)
    assert result.exit_code == code
    assert result.stdout == ""
    assert named in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_images_without_labels_cannot_be_ranked_by(photo_folder: Path) -> None:
    result = run(photo_folder / "temple")
    assert result.exit_code == 1
    assert "12 of 12 images have no label" in result.stderr
