"""Fixtures of several files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def classification() -> Callable[..., tuple[Any, Any, Any]]:
    """Draw classes, predicted classes and probabilities of n rows."""

    def draw(seed: int = 0, n: int = 120, classes: int = 3) -> tuple[Any, Any, Any]:
        rng = np.random.default_rng(seed)
        proba = rng.dirichlet(np.ones(classes), n)
        y = np.array([rng.choice(classes, p=row) for row in proba])
        names = np.array(["ant", "bee", "cow"])[:classes]
        return names[y], names[proba.argmax(axis=1)], proba

    return draw
