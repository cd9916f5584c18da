"""Schemas of the classes in model files: texts of ``name=kind``; CONTRIBUTING.md lists kinds."""

from __future__ import annotations

import importlib
import inspect
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

# Neither written nor read: parameters of the machine, and scikit-learn's metadata requests.
IGNORED = ("cache", "checkpoint", "device", "memory", "n_jobs", "verbose", "_metadata_request")
# Parameters that only `fit` uses; a value that cannot be saved is skipped with a warning.
OF_TRAINING = ("augment", "cv", "random_state")
# Larger than the embedding of any backbone; a row of this size takes 64 MiB in a trial prediction.
_LARGEST_SIZE = 2**24
_ARRAY = re.compile(r"(float|int|int32|labels)\[([a-z0-9,]*)\]")
_ARRAY_KINDS = {"float": "f", "int": "iu", "int32": "i", "labels": "biufUO"}


@dataclass(frozen=True)
class ClassSchema:
    """The attributes of a class in model files."""

    module: str  # defines the class
    text: str = ""  # the attributes with their kinds
    fresh: dict[str, Any] = field(default_factory=dict)  # not saved: the values after loading
    left_out: tuple[str, ...] = ()  # not saved, and missing after loading
    former: tuple[str, ...] = ()  # parameters in files of earlier versions, which are skipped
    fits: Callable[[Any], bool] = lambda made: True  # whether fitted attributes are consistent

    @cached_property
    def attributes(self) -> dict[str, tuple[str, bool]]:
        """The kind of each attribute, and whether it is optional."""
        pairs = (item.split("=") for item in self.text.split())
        return {name.removesuffix("?"): (kind, name.endswith("?")) for name, kind in pairs}

    def load(self, name: str) -> type:
        """Import the class."""
        return getattr(importlib.import_module(self.module), name)

    def check(self, cls: type, state: dict[str, Any]) -> bool:
        """Return whether attributes are those of a fitted object. Raises ValueError if invalid."""
        given = parameters(cls)
        known = dict.fromkeys(given, ("plain", True)) | self.attributes
        its = f"its {cls.__name__}"
        unknown = [name for name in state if name not in known or name in IGNORED]
        if unknown:
            raise ValueError(f"{its} has the attribute {unknown[0]!r}, which is not allowed")
        required = [name for name, (_, optional) in known.items() if not optional]
        missing = [name for name in required if name not in state]
        is_unfitted = given and len(missing) == len(required)
        lacks = [] if is_unfitted else missing
        lacks += [n for n, d in given.items() if d is inspect.Parameter.empty and n not in state]
        if lacks:
            raise ValueError(f"{its} lacks the attribute {lacks[0]!r}")
        sizes: dict[str, int] = {}
        for name, (kind, _) in known.items():
            if name in state:
                _check_kind(f"{name} of {its}", state[name], kind, sizes)
        return not missing

    def check_fit(self, made: Any) -> None:
        """Raise ValueError unless the attributes of a fitted object are consistent."""
        if not self.fits(made):
            raise ValueError(f"the attributes of its {type(made).__name__} do not fit together")


def parameters(cls: type) -> dict[str, Any]:
    """Return the constructor parameters of an estimator class and their defaults."""
    if not hasattr(cls, "get_params"):
        return {}
    signature = inspect.signature(cls)
    return {name: parameter.default for name, parameter in signature.parameters.items()}


def _check_kind(name: str, value: Any, kind: str, sizes: dict[str, int]) -> None:
    """Raise ValueError unless `value`, the attribute `name`, is of `kind`; add to `sizes`."""
    for one in kind.split("|"):
        found = _sizes_if(value, one)
        if found is not None and all(sizes.get(key, size) == size for key, size in found.items()):
            sizes |= found
            return
    shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)[:80]
    known = {key: sizes[key] for key in re.findall(r"[a-z]", kind) if key in sizes}
    where = f" with {known}" if "[" in kind and known else ""
    raise ValueError(f"{name} must be {kind}{where}; got {shown}")


def _sizes_if(value: Any, kind: str) -> dict[str, int] | None:
    """Return the sizes of a value; None if it is not of `kind`."""
    array = _ARRAY.fullmatch(kind)
    if array:
        return _sizes_of_array(value, array[1], array[2].split(",") if array[2] else [])
    is_bool = isinstance(value, bool)
    is_int = isinstance(value, numbers.Integral) and not is_bool
    if kind.startswith("int:"):
        return {kind[4:]: int(value)} if is_int and 0 <= value <= _LARGEST_SIZE else None
    matches = {
        "plain": True,
        "none": value is None,
        "bool": is_bool,
        "int": is_int,
        "float": isinstance(value, numbers.Real) and not is_bool,
        "str": isinstance(value, str),
        "tensors": isinstance(value, dict)
        and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items()),
    }
    return {} if matches.get(kind, type(value).__name__ == kind) else None


def _sizes_of_array(value: Any, kind: str, names: list[str]) -> dict[str, int] | None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in _ARRAY_KINDS[kind]:
        return None
    if value.ndim != len(names) or (kind == "int32" and value.dtype != np.int32):
        return None
    sizes: dict[str, int] = {}
    for name, size in zip(names, value.shape, strict=True):
        if (int(name) if name.isdecimal() else sizes.setdefault(name, size)) != size:
            return None
    return sizes
