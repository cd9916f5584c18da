"""Names of images for a page that goes to other people: without the folders that all share."""

from __future__ import annotations

import os


def short_names(names: list[str]) -> list[str]:
    """Return the names without the folder that they have in common.

    >>> short_names(["/home/me/photos/cat/1.jpg", "/home/me/photos/dog/2.jpg"])
    ['cat/1.jpg', 'dog/2.jpg']
    >>> short_names(["/home/me/1.jpg"])
    ['1.jpg']
    """
    folders = [os.path.dirname(name) for name in names]  # noqa: PTH120
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no names, or absolute and relative ones: nothing is shared
        return names
    return [os.path.relpath(name, common) if common else name for name in names]
