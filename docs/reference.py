"""Writes the pages of the API reference: a page of names by group, a list for each package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import featuretl


def public_packages() -> list[ModuleType]:
    """Return the packages that have public names, without the top one."""
    names = [one.name for one in pkgutil.iter_modules(featuretl.__path__) if one.ispkg]
    packages = [importlib.import_module(f"featuretl.{name}") for name in names if name[0] != "_"]
    return [package for package in packages if getattr(package, "__all__", [])]


def groups() -> dict[str, list[str]]:
    """Return the public names, in full, by the group under which the reference shows them."""
    found = {
        title: [f"featuretl.{name}" for names in modules.values() for name in names]
        for title, modules in featuretl.PUBLIC.items()
    }
    for package in public_packages():
        further = [name for name in package.__all__ if name not in featuretl.__all__]
        if further:
            found[f"`{package.__name__}`"] = [f"{package.__name__}.{name}" for name in further]
    return found


def write(folder: Path) -> None:
    """Write ``index.rst`` into `folder`; a class has its methods on its page."""
    folder.mkdir(exist_ok=True)
    lines = ["API reference", "=============", ""]
    for title, names in groups().items():
        if title.startswith("`"):
            package = importlib.import_module(title.strip("`"))
            summary = (inspect.getdoc(package) or "").splitlines()[0]
            title, text = title.replace("`", "``"), summary
        else:
            text = ""
        lines += [
            title,
            "-" * len(title),
            "",
            text,
            "",
            ".. autosummary::",
            "   :toctree: generated",
        ]
        lines += ["   :nosignatures:", "", *(f"   ~{name}" for name in names), ""]
    index = folder / "index.rst"
    text = "\n".join(lines)
    if not index.exists() or index.read_text(encoding="utf-8") != text:
        index.write_text(text, encoding="utf-8")
