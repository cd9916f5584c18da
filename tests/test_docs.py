"""The documentation: all code runs, all commands parse, and the reference is complete."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path

import click
import featuretl_cli.main as commands
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import featuretl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import reference  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks in one language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for kind, code in found if kind == language]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store that all pages share."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def photographs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photographs that the pages use, in the current folder: 20 and 10 crops per class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATURETL_CACHE", str(place / "cache"))
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        for number in range(30):
            to = Path("photos", "val" if number % 3 == 0 else "train", name)
            to.mkdir(parents=True, exist_ok=True)
            top, left = 10 * number, 17 * (number * 7 % 30)
            crop = Image.fromarray(photo[top : top + 110, left : left + 120])
            crop.save(to / f"{number:02d}.jpg", quality=92)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=named)
def test_the_code_of_every_page_runs(page: Path) -> None:
    namespace: dict[str, object] = {}
    printed = ""
    for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        needs = re.match(r"# needs (\w+)", code)
        if needs and not importlib.util.find_spec(needs[1]):
            continue
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, str(page), "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":  # what the block before prints; * stands for anything
            pattern = re.escape(" ".join(code.split())).replace(re.escape("*"), ".*")
            assert re.fullmatch(pattern, " ".join(printed.split())), printed


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "console")], ids=named)
def test_the_commands_of_every_page_parse(page: Path) -> None:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    for line in (line for line in lines if line.startswith("$ featuretl ")):
        command: click.Command = commands.cli
        arguments = shlex.split(line, comments=True)[2:]
        while isinstance(command, click.Group) and arguments and arguments[0][0] != "-":
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, line
            command = found
        context = click.Context(command, info_name=command.name)
        command.make_parser(context).parse_args(args=arguments)  # raises for an unknown option


def test_every_public_name_is_in_the_reference() -> None:
    shown = [name for names in reference.groups().values() for name in names]
    assert len(shown) == len(set(shown))
    public = {f"featuretl.{name}" for name in featuretl.__all__ if name != "__version__"}
    assert public <= set(shown)
    for package in reference.public_packages():
        for name in package.__all__:
            places = {f"featuretl.{name}", f"{package.__name__}.{name}"}
            assert places & set(shown), name


def test_the_reference_has_a_page_of_groups(tmp_path: Path) -> None:
    reference.write(tmp_path / "reference")
    text = (tmp_path / "reference" / "index.rst").read_text(encoding="utf-8")
    for title, names in reference.groups().items():
        assert title.replace("`", "``") in text
        assert all(f"~{name}\n" in text for name in names)


def test_the_readme_fits_a_screen_or_two() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 100
