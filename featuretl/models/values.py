"""Conversion of the values of a model to JSON and tensors, and back, as in docs/formats.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from featuretl.models.format import Array

_NOT_FINITE = ("nan", "inf", "-inf")


class NotPlainError(Exception):
    """Raised for a value that a model file cannot hold; the message names its type."""


class Packer:
    """Converts values to JSON, objects by ``pack_object(value)``, and collects their `tensors`."""

    def __init__(self, pack_object: Callable[[Any], tuple[str, dict[str, Any]] | None]) -> None:
        self._pack_object = pack_object
        self.tensors: dict[str, Array] = {}

    def pack(self, value: Any) -> Any:
        """Return `value` as JSON. Raises NotPlainError if a model file cannot hold it."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, np.generic):
            return {"scalar": self._keep(np.asarray(value))}
        if isinstance(value, (int, float)):
            finite = isinstance(value, int) or np.isfinite(value)
            return value if finite else {"float": str(value)}
        if isinstance(value, (list, tuple)):
            items = [self.pack(item) for item in value]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, dict):
            from sklearn.utils import Bunch  # not at the top: a file that is no model fails before

            if isinstance(value, Bunch):
                return {"bunch": {str(name): self.pack(item) for name, item in value.items()}}
            return {"dict": [[self.pack(k), self.pack(v)] for k, v in value.items()]}
        packed = self._pack_object(value)
        if packed is None:
            raise NotPlainError(f"a {type(value).__name__}")
        return {"class": packed[0], "state": packed[1]}

    def _array(self, value: Array) -> dict[str, Any]:
        if value.dtype.kind in "UO":
            items = value.tolist()
            if value.ndim != 1 or not all(isinstance(item, str) for item in items):
                raise NotPlainError("an array of objects")
            return {"strings": items, "dtype": value.dtype.kind}
        transposed = value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous
        name = self._keep(value.T if transposed else value)
        return {"array": name, "order": "F"} if transposed else {"array": name}

    def _keep(self, value: Array) -> str:
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise NotPlainError(f"an array of {value.dtype}")
        name = str(len(self.tensors))
        # Copied because safetensors rejects arrays that share memory; it has a single byte order.
        self.tensors[name] = np.array(value, value.dtype.newbyteorder("="), order="C")
        return name


def unpack(
    packed: Any, tensors: dict[str, Array], make_object: Callable[[str, dict[str, Any]], Any]
) -> Any:
    """Return the value that `Packer.pack` converted; `make_object(name, state)` makes objects."""

    def value_of(packed: Any) -> Any:
        if packed is None or isinstance(packed, (bool, int, float, str)):
            return packed
        if isinstance(packed, list):
            return [value_of(item) for item in packed]
        kinds = tuple(packed)
        if kinds not in readers:
            raise ValueError(f"it contains a value of unknown kind {list(kinds)[:4]}")
        return readers[kinds](*packed.values())

    def state_of(state: dict[str, Any]) -> dict[str, Any]:
        return {name: value_of(item) for name, item in state.items()}

    def bunch_of(items: dict[str, Any]) -> Any:
        from sklearn.utils import Bunch

        return Bunch(**state_of(items))

    def strings(items: list[str], kind: str) -> Array:
        if kind not in ("U", "O") or not all(isinstance(item, str) for item in items):
            raise ValueError("it contains an invalid array of strings")
        return np.array(items, dtype=object if kind == "O" else str)

    readers: dict[tuple[str, ...], Callable[..., Any]] = {
        ("float",): lambda text: float(_NOT_FINITE[_NOT_FINITE.index(text)]),
        ("tuple",): lambda items: tuple(value_of(items)),
        ("dict",): lambda items: {value_of(k): value_of(v) for k, v in items},
        ("bunch",): bunch_of,
        ("array",): lambda name: tensors[name],
        ("array", "order"): lambda name, order: tensors[name].T,
        ("scalar",): lambda name: tensors[name][()],
        ("strings", "dtype"): strings,
        ("class", "state"): lambda name, state: make_object(name, state_of(state)),
    }
    return value_of(packed)
