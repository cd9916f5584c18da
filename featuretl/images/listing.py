"""Files of folders and patterns: hidden ones are passed over wherever images are listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from featuretl._validation import printable
from featuretl.exceptions import InputError
from featuretl.images.decode import is_image_name


def is_hidden(name: str, pattern: str = "") -> bool:
    """Return whether a part of `name`, a path with ``/``, begins with a dot that no part of `pattern` names.

    >>> is_hidden("a/._1.jpg"), is_hidden("../a.jpg"), is_hidden(".x/1.jpg", ".x/*")
    (True, False, False)
    """
    asked = [part for part in pattern.split("/") if part.startswith(".")]
    return any(
        part.startswith(".")
        and part not in (".", "..")
        and not any(fnmatchcase(part, one) for one in asked)
        for part in name.split("/")
    )


def images_in_folder(
    root: str, inside: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Yield the images below `root`, relative to it, in order; links are followed, but not in a loop."""
    state = os.stat(os.path.join(root, inside))
    if (state.st_dev, state.st_ino) in above:
        return
    above = (*above, (state.st_dev, state.st_ino))
    with os.scandir(os.path.join(root, inside)) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        name = os.path.join(inside, entry.name)
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from images_in_folder(root, name, above)
        elif is_image_name(Path(entry.name)):
            yield name


def files_of_pattern(source: str) -> list[str]:
    """Return the files that a glob pattern matches, sorted. Raises InputError if there are none."""
    pattern = Path(source)
    if pattern.name == "**":  # means all files below, which pathlib takes to mean all folders
        pattern /= "*"
    try:
        # Unlike glob.glob, ** does not follow symbolic links here, which may loop.
        found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except (ValueError, NotImplementedError):
        found = []
    matches = [
        str(path)
        for path in found
        if path.is_file()
        and (pattern.suffix or is_image_name(path))
        and not is_hidden(path.as_posix(), pattern.as_posix())
    ]
    if not matches:
        raise InputError(
            f"{printable(source)!r} is neither a file, a folder, nor a pattern that matches an image."
        )
    return matches
