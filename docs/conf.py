"""Configuration of the documentation site; `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import featuretl

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]
import reference  # noqa: E402

project = "featuretl"
author = "the featuretl developers"
copyright = f"2026, {author}"
version = release = featuretl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "gallery/*.ipynb",
    "gallery/*.py",
    "gallery/**/*.md5",
    "**/sg_execution_times.rst",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]

templates_path = ["_templates"]
default_role = "obj"
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Links into other projects need their inventories, which only a machine with internet can fetch;
# timm's documentation has none.
intersphinx_mapping = {
    "numpy": ("https://numpy.org/doc/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
if "FEATURETL_DOCS_ONLINE" not in os.environ:
    intersphinx_mapping = {}
    suppress_warnings.append("ref.ref")  # labels of scikit-learn in docstrings that are inherited

# serve_onnx.py needs arguments; the text encoder is a stack of its own, which need not be installed.
LEFT_OUT = ["serve_onnx"] + ["text_summaries"] * (find_spec("sentence_transformers") is None)
EXAMPLES_RUN = rf"/(?!{'|'.join(LEFT_OUT)})\w+\.py"

# What the examples write stays out of their folder: a copy of them runs.
COPY = HERE.parent / "build" / "examples"
shutil.copytree(HERE.parent / "examples", COPY, dirs_exist_ok=True)

sphinx_gallery_conf = {
    "examples_dirs": str(COPY),
    "gallery_dirs": "gallery",
    "filename_pattern": EXAMPLES_RUN,
    "ignore_pattern": r"example_data\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 10**6,
    "plot_gallery": os.environ.get("FEATURETL_DOCS_GALLERY", "1") == "1",
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "featuretl"
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"quickstart": [], "troubleshooting": [], "glossary": [], "benchmarks": []}
html_show_sourcelink = False


def setup(app: object) -> None:
    """Write the pages of the reference before Sphinx reads them."""
    reference.write(HERE / "reference")
