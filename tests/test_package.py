"""The package: light to import, its rooms depend in one direction, its lists are complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import featuretl

ROOT = Path(__file__).resolve().parents[1]

# Who may import whom inside featuretl: each room, the rooms below it. (The map: CONTRIBUTING.md.)
BELOW = {
    "exceptions": set(),
    "_validation": {"exceptions"},
    "_labels": {"exceptions", "_validation"},
    "_files": {"exceptions", "_validation"},
    "_forks": set(),
    "images": {"exceptions", "_validation", "_files", "_labels"},
    "backbones": {"exceptions", "_validation", "_forks"},
    "store": {"exceptions", "_validation", "_files", "_forks"},
    "_runtime": {"exceptions", "images", "backbones", "store"},
    "_source": {"exceptions", "_runtime", "images", "backbones", "store"},
    "media": {"exceptions", "_validation", "images", "backbones", "store", "_source"},
    "_batch_size": set(),
    "_costs": set(),
    "_engine": {
        "exceptions",
        "_validation",
        "_batch_size",
        "_costs",
        "images",
        "store",
        "_source",
    },
    "extraction": {
        "exceptions",
        "_validation",
        "images",
        "backbones",
        "store",
        "_runtime",
        "_source",
        "media",
        "_engine",
    },
    "timing": {"images", "backbones", "store", "_runtime"},
    "_progress": {"_engine"},
    "embedder": {
        "exceptions",
        "_validation",
        "images",
        "backbones",
        "store",
        "extraction",
        "_progress",
    },
    "media_embedder": {
        "exceptions",
        "_validation",
        "media",
        "store",
        "extraction",
        "embedder",
        "_progress",
    },
    "outputs": {"exceptions", "_validation", "_files", "images", "store", "extraction"},
    "heads": {"exceptions", "_validation", "_labels", "_uncertainty"},
    "demo": set(),
    "finetune": {
        "exceptions",
        "_validation",
        "_uncertainty",
        "_labels",
        "_progress",
        "images",
        "backbones",
        "store",
        "_source",
        "extraction",
        "heads",
    },
    "transfer": {
        "exceptions",
        "_validation",
        "_labels",
        "_uncertainty",
        "images",
        "backbones",
        "extraction",
        "embedder",
        "heads",
        "finetune",
        "novelty",
    },
    "_uncertainty": set(),
    "novelty": {"exceptions", "_validation", "_uncertainty", "heads"},
    "labelling": {"exceptions", "_validation", "_labels", "_uncertainty", "heads"},
    "adaptation": {"exceptions", "_validation", "_labels", "_uncertainty", "heads"},
    "ranking": {
        "exceptions",
        "_validation",
        "_labels",
        "_uncertainty",
        "_progress",
        "_runtime",
        "images",
        "backbones",
        "store",
        "extraction",
        "timing",
        "heads",
    },
    "prediction": {
        "_uncertainty",
        "exceptions",
        "_validation",
        "_labels",
        "images",
        "_engine",
        "heads",
    },
    "prediction_files": {
        "exceptions",
        "_validation",
        "images",
        "outputs",
        "models",
        "novelty",
        "prediction",
        "prediction_parts",
    },
    "scaleout": {
        "exceptions",
        "_validation",
        "_files",
        "_runtime",
        "_source",
        "_engine",
        "images",
        "backbones",
        "store",
        "extraction",
        "outputs",
        "heads",
    },
    "report": {
        "exceptions",
        "_validation",
        "_labels",
        "_uncertainty",
        "_engine",
        "images",
        "embedder",
        "outputs",
        "heads",
        "models",
        "prediction",
        "explanation",
    },
    "prediction_parts": {"exceptions", "_validation", "_forks", "outputs"},
    "models": {"exceptions", "_validation", "images", "backbones", "store", "_runtime"},
    "networks": {"exceptions", "_validation", "images", "backbones", "prediction"},
    "explanation": {
        "_labels",
        "exceptions",
        "_validation",
        "images",
        "backbones",
        "outputs",
        "prediction",
        "networks",
    },
    "export": {
        "exceptions",
        "_validation",
        "_uncertainty",
        "_runtime",
        "images",
        "backbones",
        "outputs",
        "models",
        "prediction",
        "networks",
    },
}
TORCH_ROOMS = {"backbones", "media", "finetune", "networks", "explanation", "export"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return names


def modules() -> list[Path]:
    return [
        path
        for path in (ROOT / "featuretl").rglob("*.py")
        if path.parent.name != "featuretl" or path.stem != "__init__"
    ]


def room(path: Path) -> str:
    return path.relative_to(ROOT / "featuretl").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_depend_in_one_direction(path):
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "featuretl" and rest:
            assert rest.split(".")[0] in BELOW[here] | {here}, f"{here} imports {name}"
        assert top != "featuretl_cli"
        if top in ("torch", "timm", "torchvision"):
            assert here in TORCH_ROOMS, f"{here} imports {name}"
        if top == "sklearn":
            assert not any(part.startswith("_") for part in name.split(".")), name


def test_every_package_and_every_file_in_one_is_installed():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = setuptools["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "featuretl").rglob("__init__.py")
    }
    assert set(listed) == found | {"featuretl_cli"}
    data = {
        ROOT.joinpath(*package.split("."), name)
        for package, names in setuptools["package-data"].items()
        for name in names
    }
    others = {
        path for path in (ROOT / "featuretl").rglob("*.*") if path.suffix not in (".py", ".pyc")
    }
    assert data == others


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert featuretl.__version__ == project["version"]


def test_public_names_resolve_and_are_documented():
    for name in featuretl.__all__:
        value = getattr(featuretl, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'ImageEmbeder'"):
        featuretl.ImageEmbeder  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import featuretl",
        "from featuretl_cli.main import cli; cli(['--help'], standalone_mode=False)",
        "from featuretl_cli.main import cli; cli(['extract', '--help'], standalone_mode=False)",
        "from featuretl_cli.main import cli; cli(['predict', '--help'], standalone_mode=False)",
        "from featuretl_cli.main import cli; cli(['explain', '--help'], standalone_mode=False)",
        "from featuretl_cli.main import cli; cli(['export', '--help'], standalone_mode=False)",
        "from featuretl_cli.main import cli; cli(['report', '--help'], standalone_mode=False)",
    ],
)
def test_start_up_is_light(code):
    check = "import sys; assert not {'torch', 'timm', 'sklearn', 'pyarrow', 'matplotlib', 'jinja2'} & set(sys.modules)"
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True, capture_output=True)
        seconds.append(time.monotonic() - started)
    print(f"start-up: {min(seconds):.2f} s")  # a time is told, never a reason to fail


def test_results_that_hold_arrays_are_compared_by_identity():
    """The comparison that dataclass writes would raise: arrays are compared element by element."""
    arrays = re.compile(r"Array|ndarray|Tensor|DataFrame|Bunch")
    for path in sorted((ROOT / "featuretl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = map(ast.unparse, getattr(node, "decorator_list", []))
            said = next((text for text in decorators if text.startswith("dataclass")), None)
            if said is None or not isinstance(node, ast.ClassDef):
                continue
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            kinds = [ast.unparse(field.annotation) for field in fields]
            holds = any(arrays.search(kind) and "Callable" not in kind for kind in kinds)
            assert not holds or "eq=False" in said, f"{path.name}: {node.name}"
