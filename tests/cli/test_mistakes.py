"""A mistake needs no slow library; known images, and a few new ones, need no PyTorch."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from featuretl_cli.main import cli

SLOW = ("torch", "timm", "sklearn", "pandas", "matplotlib", "onnxruntime")

MISTAKES = """
train nofolder -o x.featuretl
train photos -o x.txt
train photos -o nofolder/x.featuretl
train photos/flower -o x.featuretl
train labels.csv --label-column nope -o x.featuretl
train labels.csv -o x.featuretl
predict no.featuretl photos -o p.csv
predict missing.featuretl photos -o p.csv
predict no.featuretl photos -o p.xyz
predict no.featuretl nofolder -o p.csv
evaluate no.featuretl photos
evaluate missing.featuretl photos
report no.featuretl photos -o r.html
report no.featuretl photos -o r.pdf
extract nofolder -o x.npz
extract photos -o x.xyz
extract photos -o nofolder/x.npz
rank nofolder
rank photos/flower
explain no.featuretl photos -o folder
explain no.featuretl photos -o e.xyz
export no.featuretl -o x.onnx
export no.featuretl -o x.xyz
suggest nofolder
""".strip().splitlines()

KNOWN = """
predict m.featuretl photos -o p.csv
evaluate m.featuretl photos
extract photos -o x.npz
report x.npz -o r.html --task classification
""".strip().splitlines()

NEW = """
train photos -o n.featuretl --strategy linear --cache c1
train photos -o o.featuretl --strategy linear --no-cache
predict n.featuretl photos -o p.csv --cache c2
predict n.featuretl photos -o q.csv --no-cache
evaluate n.featuretl photos --cache c3
extract photos -o x.npz --cache c4
report n.featuretl photos -o r.html --cache c2
explain n.featuretl photos -o explained
""".strip().splitlines()

CHILD = """
import json, sys
from click.testing import CliRunner
from featuretl.exceptions import FeatureTLError
from featuretl_cli.main import cli
found = []
for line in json.load(sys.stdin):
    result = CliRunner().invoke(cli, line.split())
    slow = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
    told = isinstance(result.exception, (FeatureTLError, SystemExit)) and bool(result.exit_code)
    found.append([line, told, slow])
print(json.dumps(found))
"""


def _answers(lines, folder):
    """Run commands in one child; return each, whether it told an error, and slow libraries."""
    command = [sys.executable, "-c", CHILD, json.dumps(SLOW)]
    options = {"capture_output": True, "text": True, "cwd": folder, "check": True}
    return json.loads(subprocess.run(command, input=json.dumps(lines), **options).stdout)


def _possible(lines):
    """Return the commands, without reports if the packages that these need are missing."""
    has_report = all(map(importlib.util.find_spec, ("jinja2", "matplotlib")))
    return [line for line in lines if has_report or not line.startswith("report")]


def test_a_mistake_is_answered_before_a_slow_library_is_imported(photo_folder, tmp_path):
    (tmp_path / "photos").symlink_to(photo_folder)
    photo = next(Path(photo_folder).rglob("*.jpg"))
    (tmp_path / "labels.csv").write_text(f"path,label\n{photo},one\n{photo},one\n")
    (tmp_path / "no.featuretl").write_text("no model")
    for line, told, slow in _answers(MISTAKES, tmp_path):
        assert told, line
        assert not slow, line


def test_known_images_need_no_pytorch(photo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photo_folder)
    trained = CliRunner().invoke(cli, ["train", "photos", "-o", "m.featuretl", "--strategy=linear"])
    assert trained.exit_code == 0, trained.output
    known = _answers(_possible(KNOWN), tmp_path)
    for line, told, slow in known:
        assert not told, line
        assert not {"torch", "timm"} & set(slow), line


def test_a_few_new_images_need_no_pytorch(photo_folder, tmp_path):
    (tmp_path / "photos").symlink_to(photo_folder)
    for line, told, slow in _answers(_possible(NEW), tmp_path):
        assert not told, line
        assert not {"torch", "timm"} & set(slow), line
    assert (tmp_path / "p.csv").read_text() == (tmp_path / "q.csv").read_text()
