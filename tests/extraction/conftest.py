"""Fixtures: the numbers of an extraction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from featuretl.extraction.extraction import Extraction
from featuretl.extraction.image_encoder import ImageEncoder


@pytest.fixture
def counts() -> Callable[[Extraction], tuple[int, int, int]]:
    """Return a function that gives the numbers of embedded, cached and failed images."""

    def of(extraction: Extraction) -> tuple[int, int, int]:
        statistics = extraction.statistics
        return statistics.embedded, statistics.cached, statistics.failed

    return of


@pytest.fixture
def pipelined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pipeline feed the CPU, as it feeds other devices."""
    monkeypatch.setattr(ImageEncoder, "pipelined", property(lambda self: self._workers))


@pytest.fixture(params=["each thread", "pipeline"])
def strategy(request: pytest.FixtureRequest) -> str:
    """Run the test with both strategies of the engine."""
    if request.param == "pipeline":
        request.getfixturevalue("pipelined")
    return request.param
