"""A claim ends with the process that made it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featuretl.store import local
from featuretl.store.local import Claims

SPACE = "cd" * 32
KEY = bytes(range(32))

pytestmark = pytest.mark.skipif(local._SET_LOCK is None, reason="no such locks on this platform")


def test_a_claim_excludes_others_until_it_is_released(tmp_path):
    one, other = Claims(tmp_path, SPACE), Claims(tmp_path, SPACE)
    assert one.claim(KEY)
    assert one.claim(KEY)
    assert not other.claim(KEY)
    assert other.claim(bytes(reversed(KEY)))
    assert Claims(tmp_path, "01" * 32).claim(KEY)  # another space
    one.release_all()
    assert other.claim(KEY)


def test_a_claim_ends_when_its_process_is_killed(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from featuretl.store.local import Claims\n"
        f"claims = Claims(Path({str(tmp_path)!r}), {SPACE!r}); assert claims.claim({KEY!r})\n"
        "print('taken', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert process.stdout.readline() == b"taken\n"
    mine = Claims(tmp_path, SPACE)
    assert not mine.claim(KEY)
    process.kill()
    process.communicate()
    assert mine.claim(KEY)
    mine.release_all()


def test_without_locks_every_claim_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_SET_LOCK", None)
    assert Claims(tmp_path, SPACE).claim(KEY)
    assert Claims(tmp_path, SPACE).claim(KEY)
