"""The package: fast imports, one-way dependencies between subpackages, complete lists."""

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
sys.path.insert(0, str(ROOT / "docs"))

import house  # noqa: E402
import reference  # noqa: E402

# A subpackage imports only from the sets above its own; CONTRIBUTING.md describes each one.
FLOORS = [
    {"exceptions"},
    {"_core"},
    {"_learning"},
    {"images", "backbones", "store", "heads"},
    {"runtimes", "media", "novelty", "labelling", "adaptation"},
    {"extraction", "models"},
    {"scaleout", "ranking", "finetune", "prediction"},
    {"transfer", "networks"},
    {"explanation", "export"},
    {"report"},
]
TORCH_ROOMS = {"backbones", "runtimes", "media", "finetune", "networks", "explanation", "export"}


def test_rooms_depend_in_one_direction():
    modules = house.graph()
    below: set[str] = set()
    for floor in FLOORS:
        for room in floor:
            assert house.subpackage_imports(modules)[room] - {""} <= below, room
        below |= floor
    assert below == set(house.subpackage_imports(modules)) - {""}
    assert house.find_cycle(modules) == []
    assert house.private_imports() == []


def test_slow_libraries_and_what_is_private_in_scikit_learn_are_not_imported():
    for path in house.files():
        for module, _ in house.imported(path):
            top = module.partition(".")[0]
            assert top != "featuretl_cli"
            if top in ("torch", "timm", "torchvision"):
                assert house.subpackage_of(house.module_of(path)) in TORCH_ROOMS, path
            if top == "sklearn":
                assert not any(part.startswith("_") for part in module.split(".")), path


def test_the_package_stays_small():
    rooms = [path for path in house.PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert len(rooms) <= 27
    assert len(list(house.PACKAGE.glob("*.py"))) <= 3
    assert sum(len(path.read_text().splitlines()) for path in house.files()) < 30_000


def test_only_one_file_asks_what_a_model_is():
    assert house.model_attribute_checks() == []


def test_every_module_has_its_test_file():
    assert house.untested_modules() == []


def test_files_and_functions_are_short():
    assert house.long_files() == []
    assert house.long_bodies(house.files()) == []


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


def test_the_version_is_in_one_place():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "featuretl.__version__"
    for name in ("CITATION.cff", "conda/recipe.yaml"):  # copies that every release must update
        assert featuretl.__version__ in (ROOT / name).read_text()


def test_the_conda_recipe_names_the_same_lowest_versions():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    recipe = (ROOT / "conda" / "recipe.yaml").read_text()
    for dependency in pyproject["project"]["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)([=>]=.+)", dependency).groups()
        assert f"- {'pytorch' if name == 'torch' else name} {version}\n" in recipe


def test_public_names_resolve_and_are_documented():
    assert len(featuretl.__all__) <= 40
    for module in reference.public_packages():
        for name in module.__all__:
            assert name == "__version__" or getattr(module, name).__doc__, name
    code = "import featuretl; featuretl.media.Sound, featuretl.report.label_errors"
    subprocess.run([sys.executable, "-c", code], check=True)
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
    print(f"start-up: {min(seconds):.2f} s")  # times are printed and never fail a test


def test_results_that_hold_arrays_are_compared_by_identity():
    """The generated ``__eq__`` would raise, because arrays compare element by element."""
    arrays = re.compile(r"Array|ndarray|Tensor|DataFrame|Bunch")
    for path in sorted((ROOT / "featuretl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            decorators = map(ast.unparse, getattr(node, "decorator_list", []))
            decorator = next((text for text in decorators if text.startswith("dataclass")), None)
            if decorator is None or not isinstance(node, ast.ClassDef):
                continue
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
            kinds = [ast.unparse(field.annotation) for field in fields]
            holds = any(arrays.search(kind) and "Callable" not in kind for kind in kinds)
            assert not holds or "eq=False" in decorator, f"{path.name}: {node.name}"
