"""Fixtures of several files."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def digits():
    """Pixels of handwritten digits: 600 source, 500 target and the remaining test rows."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    return X[:600], y[:600], X[600:1100], y[600:1100], X[1100:], y[1100:]
