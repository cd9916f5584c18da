"""Digits in the forms that the tests of several heads need."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digit_views():
    """Digits with copies shifted a pixel to the left and right, (n, 3 x 64), and their classes."""
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32)
    moved = [np.roll(images, shift, axis=2) for shift in (0, -1, 1)]
    return np.hstack([view.reshape(len(y), -1) for view in moved]), y


@pytest.fixture(scope="session")
def small_draws():
    """Return a function that draws n rows of digits, balanced across classes, and 300 test rows."""

    def draw(n, seed):
        X, y = load_digits(n_class=2 if n < 20 else 4, return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(X))
        classes = np.unique(y)
        train = np.concatenate([order[y[order] == c][: n // len(classes)] for c in classes])
        test = np.setdiff1d(order, train)[:300]
        return X[train], y[train], X[test], y[test]

    return draw
