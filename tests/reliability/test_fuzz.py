"""Run the targets of `fuzz.py` for a few seconds."""

from __future__ import annotations

import fuzz
import pytest


@pytest.mark.parametrize("target", fuzz.TARGETS, ids=lambda target: target.__name__)
def test_hostile_bytes_are_refused_or_right(target):
    fuzz.run(target, examples=400)
