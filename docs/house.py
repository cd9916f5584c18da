"""Print the structure of the package: ``python docs/house.py``.

The subpackages ("rooms") are the packages and modules at the top of ``featuretl/``. One imports
another if any of its files does, even inside a function or for type checking only.
`tests/test_package.py` checks the limits.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "featuretl"
MOST_LINES, LONGEST_BODY = 400, 40
# Attributes that distinguish kinds of models. Only MODEL_MODULE may check for them with `hasattr`.
MODEL_ATTRIBUTES = {
    "_multilabel",
    "_tuned",
    "classes_",
    "decision_function",
    "estimator_",
    "estimators_",
    "fine_tuned_",
    "medium",
    "n_outputs_",
    "named_steps",
    "novelty_",
    "predict",
    "predict_proba",
    "probe_",
    "steps",
    "strategy_",
    "tasks_",
}
MODEL_MODULE = "models/fitted.py"
# Estimators may check the attributes of their own parts, as scikit-learn's `available_if` does.
ESTIMATOR_SUBPACKAGES = {"_learning", "heads", "adaptation", "finetune", "transfer"}


def files() -> list[Path]:
    """Return the Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the dotted module name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def subpackage_of(module: str) -> str:
    """Return the subpackage of a module; empty for the top level."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield every module that a file imports, with the names imported from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, [alias.name for alias in node.names]


def modules_imported(path: Path, known: set[str]) -> set[str]:
    """Return the modules of this package that a file imports."""
    found = set()
    for module, names in imported(path):
        whole = {f"{module}.{name}" for name in names} & known
        found |= whole or ({module} & known)
    return found - {module_of(path)}


def graph() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    known = {module_of(path) for path in files()}
    return {module_of(path): modules_imported(path, known) for path in files()}


def subpackage_imports(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the subpackages that each subpackage imports."""
    subpackages: dict[str, set[str]] = defaultdict(set)
    for module, others in modules.items():
        here = subpackage_of(module)
        subpackages[here] |= {subpackage_of(other) for other in others} - {here}
    return dict(subpackages)


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return a cycle of a graph, or an empty list."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def private_imports() -> list[str]:
    """Return the imports of private names from other subpackages."""
    found = []
    for path in files():
        here = subpackage_of(module_of(path))
        for module, names in imported(path):
            if not module.startswith("featuretl.") or subpackage_of(module) == here:
                continue
            private = [part for part in module.split(".")[2:] if part.startswith("_")]
            private += [name for name in names if name.startswith("_")]
            if private and not (module == "featuretl" or subpackage_of(module) == ""):
                found.append(f"{path.relative_to(ROOT)}: {module} {', '.join(private)}")
    return found


def long_files() -> list[str]:
    """Return the files that exceed MOST_LINES."""
    sizes = {path: len(path.read_text().splitlines()) for path in files()}
    return [f"{p.relative_to(ROOT)} {n}" for p, n in sizes.items() if n > MOST_LINES]


def long_bodies(paths: list[Path]) -> list[str]:
    """Return the functions whose bodies, without docstrings, exceed LONGEST_BODY lines."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_BODY:
                    found.append(f"{path.relative_to(ROOT)} {node.name} {lines}")
    return found


def model_attribute_checks() -> list[str]:
    """Return the checks for MODEL_ATTRIBUTES outside MODEL_MODULE and the estimators."""
    found = []
    for path in files():
        where = path.relative_to(PACKAGE)
        if str(where) == MODEL_MODULE or where.parts[0] in ESTIMATOR_SUBPACKAGES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
                and isinstance(node.args[1], ast.Constant)
                and node.args[1].value in MODEL_ATTRIBUTES
                and ast.unparse(node.args[0]) != "self"
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    return found


def untested_modules() -> list[str]:
    """Return the modules with functions or classes, in a subpackage, without a test file."""
    missing = []
    for path in files():
        where = path.relative_to(PACKAGE)
        has_code = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            for node in ast.parse(path.read_text()).body
        )
        if len(where.parts) > 1 and path.name != "__init__.py" and has_code:
            test = ROOT / "tests" / where.parts[0].lstrip("_") / f"test_{path.stem.lstrip('_')}.py"
            missing += [] if test.exists() else [str(where)]
    return missing


def main() -> None:
    """Print the structure and the violations of the limits."""
    modules = graph()
    subpackages = subpackage_imports(modules)
    lines: dict[str, int] = defaultdict(int)
    for path in files():
        lines[subpackage_of(module_of(path))] += len(path.read_text().splitlines())
    packages = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    top_level = sorted(path.name for path in PACKAGE.glob("*.py"))
    print(f"{len(packages)} subpackages; top-level modules: {', '.join(top_level)}")
    n_imports = sum(map(len, subpackages.values()))
    print(f"{sum(lines.values()):,} lines, {n_imports} imports between subpackages")
    for name in sorted(subpackages, key=lambda name: -lines[name]):
        print(
            f"  {lines[name]:6,}  {name or 'featuretl'} -> {', '.join(sorted(subpackages[name]))}"
        )
    sys.path.insert(0, str(ROOT))
    import featuretl

    print(f"public names at the top level: {len(featuretl.__all__)}")
    for title, found in {
        "import cycle of modules": find_cycle(modules),
        "import cycle of subpackages": find_cycle(subpackages),
        "private imports": private_imports(),
        f"files over {MOST_LINES} lines": long_files(),
        f"bodies over {LONGEST_BODY} lines": long_bodies(files()),
        "modules without a test file": untested_modules(),
        f"checks for model attributes outside {MODEL_MODULE}": model_attribute_checks(),
    }.items():
        print(f"{title}: {len(found) or 'none'}")
        for line in found:
            print(f"    {line}")


if __name__ == "__main__":
    main()
