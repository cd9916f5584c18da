"""The tables of benchmarks/README.md come out of recorded runs."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
FILES = sorted((FOLDER / "results").glob("*.json"))

spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
run = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = run
spec.loader.exec_module(run)


def test_the_tables_are_those_of_the_records():
    text = (FOLDER / "README.md").read_text()
    assert run.with_tables(text, FOLDER / "results") == text
    assert len(re.findall("<!-- record: ", text)) == len(re.findall("<!-- end -->", text))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_record_says_where_it_comes_from(file):
    record = json.loads(file.read_text())
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", record["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["processor"] and "torch" in record["versions"]
    if file.stem in run.BENCHMARKS:
        assert record["command"].startswith("python benchmarks/")
        assert all(record["tables"])


def test_tables_that_a_script_prints_one_after_the_other():
    assert run.tables_in('[{"a": 1}]\n[{"b": NaN}]\n')[0] == [{"a": 1}]
    assert run.tables_in("") == []


def test_a_table_has_all_columns_and_its_source():
    record = {
        "command": "python benchmarks/x.py",
        "date": "2026-01-02",
        "commit": "abc1234",
        "processor": "2 cores P",
        "versions": {"numpy": "2.0"},
        "tables": [[{"a": 1234567, "b": 0.123456}, {"a": "x", "c": float("nan")}]],
    }
    rows = run.markdown(record, 0).splitlines()
    assert rows[:2] == ["| a | b | c |", "| --- | --- | --- |"]
    assert rows[2:4] == ["| 1,234,567 | 0.1235 |  |", "| x |  |  |"]
    assert "abc1234, on 2 cores P; numpy 2.0." in rows[-1]


def test_a_record_is_outdated_if_the_code_that_it_measures_has_changed(tmp_path, monkeypatch):
    def git(*arguments):
        how = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *how, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(run, "BENCHMARKS", {"x": run.Benchmark("x.py", "x.py", "heads")})
    git("init", "--quiet")
    (tmp_path / "heads").mkdir()
    for name in ("heads/one.py", "other.py"):
        (tmp_path / name).write_text("")
    git("add", "--all")
    git("commit", "--quiet", "-m", "one")
    results = tmp_path / "results"
    results.mkdir()
    (results / "x.json").write_text(json.dumps({"commit": git("rev-parse", "HEAD") + "-dirty"}))
    (tmp_path / "other.py").write_text("changed")
    git("commit", "--quiet", "-am", "not what it measures")
    assert run.outdated(tmp_path, results) == {}
    (tmp_path / "heads/one.py").write_text("changed")
    git("commit", "--quiet", "-am", "what it measures")
    assert run.outdated(tmp_path, results) == {"x": 1}
