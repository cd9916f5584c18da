"""Help, versions, exit statuses and --json: the same rules for every command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from featuretl_cli.main import COMMANDS, Terminated, cli
from featuretl_cli.options import GROUPS, Option

from featuretl.exceptions import InputError, NoColumnsError

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield " ".join([*words, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


ALL = dict(commands(cli))
WITH_JSON = {
    name for name, command in ALL.items() if any(p.name == "as_json" for p in command.params)
}


def help_of(name: str) -> str:
    """Return a help as click writes it to a terminal of 100 columns, of which it uses 98."""
    result = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=98)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("name", ["", *ALL])
def test_a_help_fits_a_screen(name):
    lines = help_of(name).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    summaries = [line for line in lines if line.endswith("...") and not line.startswith("Usage")]
    assert summaries == []  # click shortens what does not fit on a line


def test_the_help_groups_the_commands():
    assert sorted(one.name for group in COMMANDS.values() for one in group) == sorted(cli.commands)
    text = help_of("")
    assert [text.index(f"{title}:\n") for title in COMMANDS] == sorted(map(text.index, COMMANDS))


@pytest.mark.parametrize("name", [name for name in ALL if name != "cache"])
def test_options_are_in_groups_and_show_their_defaults(name):
    sections = re.split(r"^(\w+):\n", help_of(name), flags=re.MULTILINE)
    assert sections[1::2] == [group for group in GROUPS if group in sections]
    for option in ALL[name].params:
        if isinstance(option, click.Option):
            assert isinstance(option, Option), option
            section = sections[sections.index(option.group) + 1]
            entry = section.partition(f"  {', '.join(option.opts)} ")[2]
            described = " ".join(re.split(r"^  -", entry, flags=re.MULTILINE)[0].split())
            assert str(option.help).endswith(".") and ". " not in str(option.help)  # one sentence
            is_set = isinstance(option.default, (str, int, float)) and option.default is not False
            assert ("[default: " in described) == (is_set or option.show_default is not True)


def test_versions_need_no_import_of_the_libraries():
    code = (
        "import sys; from featuretl_cli.main import cli; cli(['--version'], standalone_mode=False);"
        "assert not {'torch', 'timm', 'sklearn', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    print(f"--version: {time.monotonic() - started:.2f} s")
    assert done.stdout.startswith("featuretl ")
    for library in ("Python", "torch", "timm", "scikit-learn", "numpy", "onnxruntime"):
        assert re.search(rf"\b{library} (\d+\.\d+|not installed)", done.stdout)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (InputError("x"), 1),
        (RuntimeError("x"), 1),
        (NoColumnsError("label_column x"), 2),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
)
def test_exit_statuses_are_those_of_the_help(error, status, monkeypatch, tmp_path):
    def fails(*args):
        if error is not None:
            raise error
        return []

    monkeypatch.setattr("featuretl.store.store.EmbeddingStore.info", fails)
    result = CliRunner().invoke(cli, ["cache", "info", "--cache", str(tmp_path)])
    assert result.exit_code == status
    table = help_of("").partition("Exit status: ")[2]
    assert re.findall(r"(?:^|;)\s*(\d+) ", table) == ["0", "1", "2", "130", "143"]


@pytest.fixture(scope="module")
def json_lines(photo_folder, shared_cache, tmp_path_factory):
    """The stdout of each command with --json, in an order in which each finds its input."""
    folder = tmp_path_factory.mktemp("json")
    photo = str(next(photo_folder.rglob("*.jpg")))
    model, images, shared = str(folder / "m.featuretl"), str(photo_folder), str(folder / "shared")
    tiny = ["--backbone", "test_resnet", "--weights", "random"]
    quick = ["--n-bootstrap", "0"]
    cases = {
        "extract": [images, *tiny, "-o", str(folder / "x.npz")],
        "train": [images, *tiny, "-o", model, "--strategy", "linear", "--test-size", "0.5"],
        "evaluate": [model, images, *quick],
        "predict": [model, images, "-o", str(folder / "p.csv")],
        "explain": [model, photo, "-o", str(folder / "e.png")],
        "export": [model, "-o", str(folder / "m.onnx")],
        "report": [model, images, "-o", str(folder / "r.html"), "--no-explain", *quick],
        "rank": [images, "--backbones", "tf_efficientnet_lite1", "--method", "knn"],
        "suggest": [images, photo, "--backbone", "tf_efficientnet_lite1", "-n", "1"],
        "backbones": ["test_resnet.r160*"],
        "cache info": [],
        "cache gc": [],
        "cache verify": [],
        "cache rebuild": [],
        "cache export": [shared],
        "cache import": [shared],
    }
    assert set(cases) == WITH_JSON - {"demo"}  # test_demo.py has it
    printed = {}
    for name, arguments in cases.items():
        has_cache = any(parameter.name == "cache" for parameter in ALL[name].params)
        cache = ["--cache", str(shared_cache)] if has_cache else []
        result = CliRunner().invoke(cli, [*name.split(), *arguments, "--json", *cache])
        assert result.exit_code == 0, (name, result.output)
        printed[name] = result.stdout
    return printed


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("name", sorted(WITH_JSON - {"demo"}))
def test_json_is_one_object(name, json_lines):
    assert isinstance(json.loads(json_lines[name]), dict)
    assert json_lines[name].count("\n") == 1
