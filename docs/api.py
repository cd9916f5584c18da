"""Builds the API reference: python docs/api.py [FOLDER], by default build/docs; `make docs`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pdoc

import featuretl


def public_packages() -> list[ModuleType]:
    """Return the packages that have public names, the top one first."""
    names = [one.name for one in pkgutil.iter_modules(featuretl.__path__) if one.ispkg]
    packages = [importlib.import_module(f"featuretl.{name}") for name in names if name[0] != "_"]
    return [featuretl, *(one for one in packages if hasattr(one, "__all__"))]


def main(folder: str = "build/docs") -> None:
    """Write a page of the names at the top and one of each public package; a warning is an error."""
    warnings.simplefilter("error")
    public = public_packages()
    for package in public:
        for name in package.__all__:
            getattr(package, name)  # they are imported on first use; pdoc shows what is there
    pdoc.render.configure(docformat="numpy", show_source=False)
    names = [package.__name__ for package in public]
    pages = [*names, r"!featuretl\..+\..+", r"!featuretl\._.+"]
    pdoc.pdoc(*pages, output_directory=Path(folder))
    print(f"{folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
