"""Lazy imports: of the public names of a package on first use (PEP 562), and of extras."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from featuretl.exceptions import FeatureTLError


def import_extra(module: str, what: str, name: str) -> Any:
    """Import a module that the extra `name` of featuretl installs; `what` begins the error."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        raise FeatureTLError(f"{what}; install it with pip install 'featuretl[{name}]'.") from error


def exports(
    package: str, names: dict[str, list[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package; `names` are by module."""
    module_of = {name: module for module, listed in names.items() for name in listed}

    def __getattr__(name: str) -> Any:
        value: Any
        if name in module_of:
            value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
            value = importlib.import_module(f"{package}.{name}")  # featuretl.media, ..
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(module_of)

    return __getattr__, __dir__, sorted(module_of)
