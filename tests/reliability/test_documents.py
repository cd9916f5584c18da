"""The documents name existing tests and the limits of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from featuretl.backbones.preprocess import MAX_RESIZED_PIXELS
from featuretl.images.decode import FORMATS, MAX_FILE_BYTES, MAX_JPEG_SCANS, MAX_PIXELS

ROOT = Path(__file__).parents[2]


def test_every_test_that_contributing_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert named <= set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))


@pytest.mark.parametrize(
    "said",
    [
        f"{MAX_FILE_BYTES // 2**20} MiB (`MAX_FILE_BYTES`)",
        f"{MAX_PIXELS:,} (`MAX_PIXELS`)",
        f"{MAX_JPEG_SCANS:,} (`MAX_JPEG_SCANS`)",
        f"{MAX_RESIZED_PIXELS:,} (`MAX_RESIZED_PIXELS`)",
        *FORMATS,
    ],
)
def test_security_states_the_limits_of_the_code(said):
    assert said.lower() in (ROOT / "SECURITY.md").read_text().lower()
