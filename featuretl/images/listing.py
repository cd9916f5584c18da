"""The files that folders, glob patterns, lists and manifests name; hidden files are skipped."""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from featuretl._core.files import cannot_be_read, is_url, open_file, without_scheme
from featuretl._core.text import printable
from featuretl.exceptions import InputError
from featuretl.images.decode import is_image_name
from featuretl.images.tables import text_batches


def is_hidden(name: str, pattern: str = "") -> bool:
    """Return whether a part of the path `name` is hidden: it begins with a dot.

    A part that matches a part of `pattern` that itself begins with a dot is not hidden.

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


def kind_of(path: str) -> str:
    """Return the kind of a file by its name: "tar", "manifest", "list", else "image".

    >>> [kind_of(name) for name in ("a.TAR.gz", "a.csv", "a.parquet", "a.txt", "a.jpg", "a")]
    ['tar', 'manifest', 'manifest', 'list', 'image', 'image']
    """
    name = path.lower()
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        return "tar"
    return {".csv": "manifest", ".parquet": "manifest", ".txt": "list"}.get(
        os.path.splitext(name)[1], "image"
    )


def files_of(source: str) -> Iterator[tuple[str, str | None]]:
    """Yield a path's or pattern's files, labelled by first subfolder, if any. Raises InputError."""
    try:
        exists, is_folder = Path(source).exists(), Path(source).is_dir()
    except OSError as error:
        raise InputError(f"{printable(source)!r} cannot be looked up: {error.strerror}.") from error
    if not exists:
        yield from ((match, None) for match in _files_of_pattern(source))
    elif not is_folder:
        yield source, None
    else:
        inside = None
        for inside in _images_in_folder(source):
            label = inside.partition(os.sep)[0] if os.sep in inside else None
            yield os.path.join(Path(source), inside), label
        if inside is None:
            raise InputError(
                f"{printable(source)!r} holds no file with an image's suffix (.jpg, .png, ..)."
            )


def paths_of_list(path: str) -> Iterator[list[str]]:
    """Yield batches of the paths in a text file, one path per line. Raises InputError."""
    start = codecs.BOM_UTF8
    try:
        with open_file(path) as file:
            while lines := list(itertools.islice(file, 4096)):
                lines[0], start = lines[0].removeprefix(start), b""
                found = [part for line in lines for part in line.splitlines() if part.strip()]
                yield [resolve_path(os.fsdecode(part), path) for part in found]
    except OSError as error:
        raise cannot_be_read(printable(path), error) from error


def rows_of_manifest(
    manifest: str, path_column: str, others: Sequence[str]
) -> Iterator[tuple[list[str], list[list[str | None]]]]:
    """Yield a manifest's paths and its other columns in batches of rows. Raises InputError."""
    rows = empty = 0
    for paths, *values in text_batches(manifest, [path_column, *others]):
        rows, empty = rows + len(paths), empty + paths.count(None)
        if not empty:
            yield [resolve_path(path, manifest) for path in paths if path], values
    if empty:
        raise InputError(
            f"Column {printable(path_column)!r} of the manifest {printable(manifest)!r} must hold "
            f"a path in every row; it holds {rows} rows, {empty} of them empty."
        )


def resolve_path(path: str, table: str) -> str:
    """Return a path or URL of a table's row; a relative path starts at the folder of the table."""
    if is_url(path):
        return without_scheme(path)
    return f"{table.rpartition('/')[0]}/{path}" if is_url(table) else str(Path(table).parent / path)


def _images_in_folder(
    root: str, inside: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Yield the images below `root`, relative to it, sorted; links are followed, loops are not.

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
        if os.path.isdir(entry.path):  # entry.is_dir raises if a link points to itself
            yield from _images_in_folder(root, name, above)
        elif is_image_name(Path(entry.name)):
            yield name


def _files_of_pattern(source: str) -> list[str]:
    """Return the files that a glob pattern matches, sorted. Raises InputError if there are none."""
    pattern = Path(source)
    if pattern.name == "**":  # all files below, but to pathlib all folders
        pattern /= "*"
    try:
        # Unlike glob.glob, ** does not follow symbolic links here; they may form loops.
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
            f"{printable(source)!r} is neither a file, a folder, nor a pattern that matches images."
        )
    return matches
