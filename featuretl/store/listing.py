"""Lists what lies in a store while other processes write, publish and free it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_SPACE_NAME = re.compile(r"[0-9a-f]{64}")


def entries(folder: Path, *suffixes: str) -> list[tuple[os.stat_result, Path]]:
    """Return the entries of a folder whose names have one of `suffixes`, and their state, by name.

    Entries that are renamed or removed meanwhile are left out; a folder that is gone has none.
    """
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listed:
        for entry in listed:
            if entry.name.endswith(suffixes):
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.stat(), Path(entry.path)))
    return sorted(found, key=lambda pair: pair[1])


def space_folders(store: Path) -> list[Path]:
    """Return the folders of all spaces that have been published, by name."""
    return [path for _, path in entries(store / "spaces", "") if _SPACE_NAME.fullmatch(path.name)]
