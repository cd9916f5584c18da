"""Prints how the package is built: ``python docs/house.py``.

Rooms are the packages and modules at the top of ``featuretl/``; an arrow goes from a room to one that
it imports, anywhere in its files, for types only or not. `tests/test_package.py` holds the limits.
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
# What tells one kind of model from another, and who may ask for it.
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
ASKS_MODELS = "models/fitted.py"
# Estimators may ask their own parts what they are, as scikit-learn's `available_if` does.
ROOMS_OF_ESTIMATORS = {"_learning", "heads", "finetune", "transfer"}


def files() -> list[Path]:
    """Return the files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of a module."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the modules that a file imports anywhere, and the names that it takes from them."""
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
    """Return what each module imports."""
    known = {module_of(path) for path in files()}
    return {module_of(path): modules_imported(path, known) for path in files()}


def arrows(modules: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return what each room imports."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, others in modules.items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    return dict(rooms)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return a circle of a graph; none if there is none."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def private_imports() -> list[str]:
    """Return where a file takes what is private to another room."""
    found = []
    for path in files():
        here = room_of(module_of(path))
        for module, names in imported(path):
            if not module.startswith("featuretl.") or room_of(module) == here:
                continue
            private = [part for part in module.split(".")[2:] if part.startswith("_")]
            private += [name for name in names if name.startswith("_")]
            if private and not (module == "featuretl" or room_of(module) == ""):
                found.append(f"{path.relative_to(ROOT)}: {module} {', '.join(private)}")
    return found


def long_files() -> list[str]:
    """Return the files with more lines than allowed."""
    sizes = {path: len(path.read_text().splitlines()) for path in files()}
    return [f"{p.relative_to(ROOT)} {n}" for p, n in sizes.items() if n > MOST_LINES]


def long_bodies(paths: list[Path]) -> list[str]:
    """Return the functions whose bodies, without the docstring, have more lines than allowed."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_BODY:
                    found.append(f"{path.relative_to(ROOT)} {node.name} {lines}")
    return found


def questions_to_models() -> list[str]:
    """Return where other code than `ASKS_MODELS` and the estimators asks what a model is."""
    found = []
    for path in files():
        where = path.relative_to(PACKAGE)
        if str(where) == ASKS_MODELS or where.parts[0] in ROOMS_OF_ESTIMATORS:
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


def main() -> None:
    """Print it all."""
    modules = graph()
    rooms = arrows(modules)
    lines: dict[str, int] = defaultdict(int)
    for path in files():
        lines[room_of(module_of(path))] += len(path.read_text().splitlines())
    packages = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    print(f"{len(packages)} rooms, {len(loose)} loose modules: {', '.join(loose)}")
    print(f"{sum(lines.values()):,} lines, {sum(map(len, rooms.values()))} arrows")
    for room in sorted(rooms, key=lambda room: -lines[room]):
        print(f"  {lines[room]:6,}  {room or 'featuretl'} -> {', '.join(sorted(rooms[room]))}")
    sys.path.insert(0, str(ROOT))
    import featuretl

    print(f"names at the top level: {len(featuretl.__all__)}")
    for title, found in {
        "circle of files": circle(modules),
        "circle of rooms": circle(rooms),
        "private imports": private_imports(),
        f"files over {MOST_LINES} lines": long_files(),
        f"bodies over {LONGEST_BODY} lines": long_bodies(files()),
        f"questions to models outside {ASKS_MODELS}": questions_to_models(),
    }.items():
        print(f"{title}: {len(found) or 'none'}")
        for line in found:
            print(f"    {line}")


if __name__ == "__main__":
    main()
