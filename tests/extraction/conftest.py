"""Fixtures: the numbers of an extraction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from featuretl.extraction.extraction import Extraction


@pytest.fixture
def counts() -> Callable[[Extraction], tuple[int, int, int]]:
    """Return a function that gives the numbers of embedded, cached and failed images."""

    def of(extraction: Extraction) -> tuple[int, int, int]:
        statistics = extraction.statistics
        return statistics.embedded, statistics.cached, statistics.failed

    return of
