"""Files of folders and patterns: hidden ones are passed over wherever images are listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from featuretl._core.files import cannot_be_read
from featuretl._core.text import printable
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
    """Yield the images below `root`, relative to it, in order; links are followed, but not in a loop.

    Raises InputError if a folder cannot be listed.
    """
    folder = os.path.join(root, inside)
    try:
        state = os.stat(folder)
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise cannot_be_read(f"The folder {printable(folder)!r}", error) from error
    if (state.st_dev, state.st_ino) in above:
        return
    above = (*above, (state.st_dev, state.st_ino))
    for entry in listed:
        name = os.path.join(inside, entry.name)
        if is_hidden(entry.name):
            continue
        if os.path.isdir(entry.path):  # entry.is_dir raises where a link leads to itself
            yield from images_in_folder(root, name, above)
        elif is_image_name(Path(entry.name)):
            yield name


def is_folder(path: str) -> bool | None:
    """Return whether a path is a folder, None if there is nothing. Raises InputError."""
    try:
        return Path(path).is_dir() if Path(path).exists() else None
    except OSError as error:
        raise InputError(f"{printable(path)!r} cannot be looked up: {error.strerror}.") from error


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
    except OSError as error:
        raise cannot_be_read(f"The pattern {printable(source)!r}", error) from error
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
