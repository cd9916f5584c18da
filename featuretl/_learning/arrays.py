"""The array library of X, in which heads compute passes over X: NumPy, or PyTorch on a device.

The functions that they call have the same names and arguments in both; all else is in NumPy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from featuretl._core.precision import full_precision
from featuretl._core.types import Array

# MPS has no float64.
_DEVICES = ("cpu", "cuda", "xpu")


def is_dispatched(X: Any) -> bool:
    """Return whether X is a tensor that stays on its device: scikit-learn's array API dispatch."""
    from sklearn import get_config  # not at the top: reading labels needs no scikit-learn

    if not hasattr(X, "detach") or not get_config()["array_api_dispatch"]:
        return False
    is_dense = str(X.layout) == "torch.strided" and not X.is_complex()
    return is_dense and X.device.type in _DEVICES


def library_of(array: Any) -> Any:
    """Return the module `torch` for a tensor, and `numpy` for others."""
    return sys.modules["torch"] if hasattr(array, "detach") else np


def to_numpy(array: Any) -> Any:
    """Return a tensor as a NumPy array, bfloat16 as float32; return others unchanged."""
    if not hasattr(array, "detach"):
        return array
    array = array.detach().cpu()
    return (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()


def near(X: Any, array: Array, dtype: Any = None) -> Any:
    """Return a NumPy `array` in the library of X and on its device, with the `dtype` of NumPy."""
    if hasattr(array, "detach"):
        return array
    array = np.asarray(array, dtype)
    if not hasattr(X, "detach"):
        return array
    return library_of(X).tensor(
        np.ascontiguousarray(array, array.dtype.newbyteorder("=")), device=X.device
    )


def is_on_cpu(array: Any) -> bool:
    """Return whether `array` is in main memory."""
    return not hasattr(array, "detach") or array.device.type == "cpu"


def float_of(X: Any) -> str:
    """Return the name of the dtype that rows of X are computed in."""
    return "float64" if str(X.dtype).endswith("float64") else "float32"


@contextmanager
def exact_products(X: Any) -> Iterator[None]:
    """Compute products of float32 tensors in float32: no TensorFloat-32 and no autocast."""
    if not hasattr(X, "detach"):
        yield
        return
    torch = library_of(X)
    with full_precision(), torch.autocast(X.device.type, enabled=False), torch.no_grad():
        yield
