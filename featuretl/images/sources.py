"""Where images come from: folders, globs, lists and manifests -> ordered paths (+ labels)."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from featuretl._validation import printable
from featuretl.exceptions import InputError
from featuretl.images.decode import is_image_name

if TYPE_CHECKING:
    import pyarrow
    from sklearn.utils import Bunch

PATH_COLUMNS = ("path", "file", "filename", "filepath", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category")


class Columns(NamedTuple):
    """Names of a manifest's columns, as far as they are given; several labels are 0/1 columns."""

    path: str | None = None
    label: str | Sequence[str] | None = None
    group: str | None = None
    tasks: Sequence[str] = ()


@dataclass(frozen=True)
class ImageList:
    """Ordered image paths with their labels.

    Attributes
    ----------
    paths : list of str
    labels : list of (str or None), or None
        One per path; None when no image has a label.
    groups : list of (str or None), or None
        One per path; None where no column of groups was named.
    tags : list of (list of str or None), or None
        One list per path where an image may have several labels: `labels` is None then.
    tasks : dict of str to list of (str or None), or None
        Where columns of several tasks were named, the value in each, one per path; `labels` is None.
    """

    paths: list[str]
    labels: list[str | None] | None = None
    groups: list[str | None] | None = None
    tags: list[list[str] | None] | None = None
    tasks: dict[str, list[str | None]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def class_names(self) -> list[str] | None:
        """The distinct labels, sorted; None without labels."""
        if self.labels is None:
            return None
        return sorted({label for label in self.labels if label is not None})


def load_image_folder(folder: str | os.PathLike[str]) -> Bunch:
    """List the images of a folder whose subfolders are the classes.

    The label is the name of the first folder below `folder`, however deep the image lies, as in
    ``sklearn.datasets.load_files`` and torchvision's ``ImageFolder``. Files whose suffix is not an
    image's, and names that begin with a dot, are passed over. Nothing is opened.

    Parameters
    ----------
    folder : path

    Returns
    -------
    data : ~sklearn.utils.Bunch
        ``data``: object array (n,) of paths (str), sorted; ``target``: array (n,) of the class
        names (str), which mean the same in every folder, whichever classes it lacks;
        ``target_names``: list of the distinct class names, sorted. Without subfolders ``target``
        is None and ``target_names`` empty.

    Raises
    ------
    InputError
        If the folder is missing or holds no image, or if only some of the images lie in subfolders.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.jpg", "dog/2.jpg", "dog/notes.txt"):
    ...         path = pathlib.Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     photos = load_image_folder(folder)
    >>> photos.target_names, photos.target
    (['cat', 'dog'], array(['cat', 'dog'], dtype='<U3'))
    """
    from sklearn.utils import Bunch

    images = _from_folder(Path(folder))
    if images.labels is not None and None in images.labels:
        bare = images.paths[images.labels.index(None)]
        raise InputError(
            f"Some images of {printable(folder)!r} lie in class folders and others, like "
            f"{printable(bare)!r}, do not; move every image into a folder named after its class."
        )
    data = np.empty(len(images), dtype=object)
    data[:] = images.paths
    target = None if images.labels is None else np.array(images.labels, str)
    return Bunch(data=data, target=target, target_names=images.class_names or [])


def find_images(
    sources: Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    label_separator: str | None = None,
    group_column: str | None = None,
    task_columns: Sequence[str] = (),
) -> ImageList:
    """Resolve what a user names on the command line into ordered images.

    Parameters
    ----------
    sources : sequence of paths
        Each one a folder (searched through; its subfolders give labels), an image file, a glob
        pattern (``**`` goes through folders), a ``.csv`` or ``.parquet`` manifest, or a ``.txt``
        file with a path a line. Relative paths in a manifest or list start at its own folder.
    path_column, label_column : str, optional
        Columns of a manifest. By default the first present of `PATH_COLUMNS` and `LABEL_COLUMNS`;
        a manifest needs no label column. A list of label columns are tags, 0 or 1 for each image.
    label_separator : str, optional
        What divides the tags of an image in its label, such as ";"; an empty label has no tags.
    group_column : str, optional
        Column of a manifest that says which images belong together.
    task_columns : sequence of str, default=()
        Columns of a manifest each of which is a task of its own, in the place of a label column.

    Raises
    ------
    InputError
        If a source is missing, names no image, lacks the column, or a column of tags holds others
        than 0 and 1.
    """
    columns = Columns(path_column, label_column, group_column, task_columns)
    parts = [_from_source(os.fspath(source), columns) for source in sources]
    if not parts:
        raise InputError("No images were named; give a folder, a glob, files or a manifest.")
    images = ImageList(
        [path for part in parts for path in part.paths],
        _joined([part.labels for part in parts], parts),
        _joined([part.groups for part in parts], parts),
        _joined([part.tags for part in parts], parts),
    )
    if task_columns:
        by_part = [part.tasks or {} for part in parts]
        tasks = {
            name: _joined([own.get(name) for own in by_part], parts) or [None] * len(images)
            for name in task_columns
        }
        return replace(images, labels=None, tasks=tasks)
    if not label_separator or images.labels is None:
        return images
    tags = [_split(label or "", label_separator) for label in images.labels]
    return replace(images, labels=None, tags=list(tags))


def _split(label: str, separator: str) -> list[str]:
    return [tag.strip() for tag in label.split(separator) if tag.strip()]


def _joined(columns: list[list[Any] | None], parts: list[ImageList]) -> list[Any] | None:
    if all(column is None for column in columns):
        return None
    rows = zip(columns, parts, strict=True)
    return [value for column, part in rows for value in column or [None] * len(part)]


def _from_source(source: str, columns: Columns) -> ImageList:
    path = Path(source)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise InputError(f"{printable(source)!r} cannot be looked up: {error.strerror}.") from error
    if is_folder:
        return _from_folder(path)
    if exists:
        suffix = path.suffix.lower()
        if suffix in (".csv", ".parquet"):
            return _from_manifest(path, columns)
        return _from_list(path) if suffix == ".txt" else ImageList([source])
    return ImageList(files_of_pattern(source))


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
    hidden = any(part.startswith(".") for part in pattern.parts if part != "..")
    matches = [
        str(path)
        for path in found
        if path.is_file()
        and (pattern.suffix or is_image_name(path))
        and (hidden or not any(part.startswith(".") for part in path.parts if part != ".."))
    ]
    if not matches:
        raise InputError(
            f"{printable(source)!r} is neither a file, a folder, nor a pattern that matches an image."
        )
    return matches


def _from_folder(folder: Path) -> ImageList:
    if not folder.is_dir():
        raise InputError(f"{printable(folder)!r} is not a folder; give one that holds images.")
    found = sorted(_image_files(folder))
    if not found:
        raise InputError(
            f"{printable(folder)!r} holds no file with an image's suffix (.jpg, .png, ..)."
        )
    paths = [str(folder / relative) for relative in found]
    labels = [relative.parts[0] if len(relative.parts) > 1 else None for relative in found]
    return ImageList(paths, labels if any(label is not None for label in labels) else None)


def _image_files(
    root: Path, inside: Path = Path(), above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Yield the images below `root` relative to it; symbolic links are followed, but not in a loop."""
    state = (root / inside).stat()
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    with os.scandir(root / inside) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _image_files(root, inside / entry.name, above | {here})
            elif is_image_name(Path(entry.name)):
                yield inside / entry.name


def _from_list(path: Path) -> ImageList:
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    paths = [str(path.parent / os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise InputError(f"The list {printable(path)!r} names no image; write one path a line.")
    return ImageList(paths)


def _from_manifest(manifest: Path, columns: Columns) -> ImageList:
    import pyarrow

    try:
        with manifest.open("rb") as file:  # pyarrow takes no path that is not UTF-8
            table = (_read_csv if manifest.suffix.lower() == ".csv" else _read_parquet)(file)
        return _from_table(table, manifest, columns)
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"The manifest {printable(manifest)!r} cannot be read: {printable(error)}"
        ) from error


def _from_table(table: pyarrow.Table, manifest: Path, columns: Columns) -> ImageList:
    path_name = _column(table, manifest, columns.path, PATH_COLUMNS)
    if path_name is None:
        raise InputError(
            f"The manifest {printable(manifest)!r} has no column of paths (one of "
            f"{', '.join(PATH_COLUMNS)}); it has {printable(', '.join(table.column_names))}: "
            "name the one to use with path_column."
        )
    values = _strings(table, path_name)
    if not values or None in values or "" in values:
        raise InputError(
            f"Column {printable(path_name)!r} of the manifest {printable(manifest)!r} must hold a "
            f"path in every row; it holds {len(values)} rows, {sum(not v for v in values)} of them empty."
        )
    tags, label_name, tasks = None, None, None
    if columns.tasks:
        names = [_column(table, manifest, name, ()) or name for name in columns.tasks]
        tasks = {name: [v or None for v in _strings(table, name)] for name in names}
    elif isinstance(columns.label, str) or columns.label is None:
        label_name = _column(table, manifest, columns.label, LABEL_COLUMNS)
    else:
        tags = _tags(table, manifest, columns.label)
    group_name = _column(table, manifest, columns.group, ())
    labels, groups = (
        None if name is None else [v or None for v in _strings(table, name)]
        for name in (label_name, group_name)
    )
    paths = [str(manifest.parent / value) for value in values if value]
    return ImageList(paths, labels, groups, tags, tasks)


def _tags(table: pyarrow.Table, manifest: Path, names: Sequence[str]) -> list[Any]:
    """Return the names of the columns in which a row has 1."""
    rows: list[list[str]] = [[] for _ in range(table.num_rows)]
    meaning = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    for name in names:
        values = _strings(table, _column(table, manifest, name, ()) or name)
        for row, value in zip(rows, values, strict=True):
            has = meaning.get((value or "").lower())
            if has is None:
                raise InputError(
                    f"Column {printable(name)!r} of the manifest {printable(manifest)!r} must hold "
                    f"0 or 1 in every row, as one of several label columns; got {printable(value)}."
                )
            if has:
                row.append(name)
    return rows


def _read_csv(file: BinaryIO) -> pyarrow.Table:
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    data = file.read()
    names = csv.open_csv(io.BytesIO(data), parse_options=parse).schema.names
    # Everything is text: a label 007 stays 007, and NA is a name like any other.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, "string"), null_values=[""], strings_can_be_null=True
    )
    return csv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=convert)


def _read_parquet(file: BinaryIO) -> pyarrow.Table:
    from pyarrow import parquet

    return parquet.read_table(file)


def _column(
    table: pyarrow.Table, manifest: Path, asked: str | None, usual: Sequence[str]
) -> str | None:
    if asked is None:
        return next((name for name in usual if name in table.column_names), None)
    if asked not in table.column_names:
        raise InputError(
            f"The manifest {printable(manifest)!r} has no column {printable(asked)!r}; "
            f"it has {printable(', '.join(table.column_names))}."
        )
    return asked


def _strings(table: pyarrow.Table, name: str) -> list[Any]:
    import pyarrow

    return table.column(name).cast(pyarrow.string()).to_pylist()
