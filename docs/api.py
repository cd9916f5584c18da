"""Builds the API reference: python docs/api.py [FOLDER], by default build/docs; `make docs`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc

import featuretl


def main(folder: str = "build/docs") -> None:
    """Write a page of all public names; a warning is an error."""
    warnings.simplefilter("error")
    for name in featuretl.__all__:
        getattr(featuretl, name)  # they are imported on first use; pdoc shows what is there
    pdoc.render.configure(docformat="numpy", show_source=False)
    pdoc.pdoc("featuretl", r"!featuretl\..+", output_directory=Path(folder))
    print(f"{folder}/index.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
