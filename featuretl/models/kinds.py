"""What an attribute of a model may be, in words, and the check of it.

A kind is one or more of these, divided by ``|``::

    none, bool, int, float, str, tensors, plain     `plain` is anything that a model file holds
    int:d                                           an int that is the size d
    float[k,d], int[s], int32[s], labels[c]         arrays, with names or numbers for their sizes
    Pipeline, ..                                    an object of that class

Sizes of one name are equal throughout an object. ``?`` after a name in `featuretl.models.classes`
marks an attribute that may be missing.
"""

from __future__ import annotations

import numbers
import re
from typing import Any

import numpy as np

# More features than any backbone gives; what is checked with a row of so many takes 64 MiB.
_LARGEST_SIZE = 2**24
_ARRAY = re.compile(r"(float|int|int32|labels)\[([a-z0-9,]*)\]")
_ARRAY_KINDS = {"float": "f", "int": "iu", "int32": "i", "labels": "biufUO"}


def check_kind(name: str, value: Any, kind: str, sizes: dict[str, int]) -> None:
    """Raise ValueError unless `value`, the attribute `name`, is of `kind`; note its sizes."""
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
    """Return the sizes of a value of one kind, None if it is of another."""
    array = _ARRAY.fullmatch(kind)
    if array:
        return _sizes_of_array(value, array[1], array[2].split(",") if array[2] else [])
    if kind.startswith("int:"):
        is_size = _is_int(value) and 0 <= value <= _LARGEST_SIZE
        return {kind[4:]: int(value)} if is_size else None
    checks = {
        "plain": lambda: True,
        "none": lambda: value is None,
        "bool": lambda: isinstance(value, bool),
        "int": lambda: _is_int(value),
        "float": lambda: isinstance(value, numbers.Real) and not isinstance(value, bool),
        "str": lambda: isinstance(value, str),
        "tensors": lambda: _is_tensors(value),
    }
    matches = checks[kind]() if kind in checks else type(value).__name__ == kind
    return {} if matches else None


def _sizes_of_array(value: Any, kind: str, names: list[str]) -> dict[str, int] | None:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in _ARRAY_KINDS[kind]:
        return None
    if value.ndim != len(names) or (kind == "int32" and value.dtype != np.int32):
        return None
    sizes: dict[str, int] = {}
    for name, size in zip(names, value.shape, strict=True):
        if name.isdecimal() and int(name) != size:
            return None
        if not name.isdecimal() and sizes.setdefault(name, size) != size:
            return None
    return sizes


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in value.items()
    )
