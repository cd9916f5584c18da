"""``featuretl suggest``: suggestions before and after images are labelled."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli


@pytest.fixture
def mixed(photos: list[str], tmp_path: Path) -> Path:
    """A flat folder of 24 photographs, one of them twice, and an unreadable file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(photos):
        shutil.copy(path, folder / f"{number:02d}.jpg")
    shutil.copy(photos[0], folder / "again.jpg")
    (folder / "bad.jpg").write_text("<html>")
    return folder


def run(*arguments: object):
    return CliRunner().invoke(cli, ["suggest", *map(str, arguments)])


def test_what_is_filled_in_is_not_suggested_again(mixed, tmp_path):
    first = run(mixed, "-n", 10, "-o", tmp_path / "labels.csv")
    assert first.exit_code == 0, first.output
    assert "1 unreadable images" in first.stderr
    assert "10 of 24 unlabelled images" in first.stderr
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == 10
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("path,label\n")
        for number, row in enumerate(rows):
            file.write(f"{row['path']},{'ant' if number % 2 else 'bee'}\n")
    second = run(tmp_path / "labels.csv", mixed, "-n", 100, "--json")
    facts = json.loads(second.stdout)
    assert (facts["labelled"], facts["unlabelled"]) == (10, 14)
    assert len(facts["suggested"]) == 14
    assert not {row["path"] for row in rows} & set(facts["suggested"])
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "species.csv").write_text(text.replace("path,label", "path,species"))
    named = run(tmp_path / "species.csv", mixed, "-n", 100, "--label-column", "species", "--json")
    assert json.loads(named.stdout) == facts
    uncertain = run(tmp_path / "labels.csv", mixed, "-n", 3, "--strategy", "uncertainty")
    assert uncertain.exit_code == 0
    assert len(uncertain.stdout.splitlines()) == 3


def test_what_cannot_be_suggested_is_one_sentence(mixed, tmp_path):
    uncertain = run(mixed, "--strategy", "uncertainty")
    assert uncertain.exit_code == 1
    assert "two classes" in uncertain.stderr
    assert run(mixed, "-o", "labels.txt").exit_code == 1
    assert "Traceback" not in uncertain.output
    assert run(mixed, "--label-column", "species").exit_code == 2


def test_how_many_labels_an_accuracy_needs(mixed, tmp_path):
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("path,label\n")
        for number in range(20):
            file.write(f"{mixed / f'{number:02d}.jpg'},{'ant' if number % 2 else 'bee'}\n")
    run_with = ("--target-accuracy", 0.9, "-n", 2)
    found = json.loads(run(tmp_path / "labels.csv", mixed, *run_with, "--json").stdout)["forecast"]
    assert found["target_accuracy"] == 0.9
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert set(found["labels_needed"]) == {"value", "low", "high"}
    said = run(tmp_path / "labels.csv", mixed, *run_with)
    assert "20 labels" in said.stderr
    assert len(said.stdout.splitlines()) == 2
