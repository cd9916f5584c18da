"""Image paths and labels from folders, glob patterns, lists and manifests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featuretl._core.files import is_url
from featuretl._core.text import printable
from featuretl.exceptions import InputError, NoColumnsError
from featuretl.images.crops import Crop, number_or_text
from featuretl.images.listing import files_of, kind_of, paths_of_list, rows_of_manifest
from featuretl.images.tables import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    image_column,
    pick_column,
    pick_path_column,
    schema_of,
)


@dataclass(frozen=True)
class ImageList:
    """Ordered image paths with their labels.

    Attributes
    ----------
    paths : list of str
    labels : list of (str or None), or None
        One per path; None if no image has a label.
    groups : list of (str or None), or None
        One per path; None if no group column was named.
    tags : list of (list of str or None), or None
        The tags of each image, in multi-label tasks; `labels` is None then.
    tasks : dict of str to list of (str or None), or None
        The values of each task column, one per path; `labels` is None then.
    crops : list of (Crop or None), or None
        The crop of each path; None if no box columns were named.
    """

    paths: list[str]
    labels: list[str | None] | None = None
    groups: list[str | None] | None = None
    tags: list[list[str] | None] | None = None
    tasks: dict[str, list[str | None]] | None = None
    crops: list[Crop | None] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def images(self) -> list[Any]:
        """The images: crops, where there are boxes, and paths."""
        if self.crops is None:
            return self.paths
        return [crop or path for crop, path in zip(self.crops, self.paths, strict=True)]

    @property
    def class_names(self) -> list[str] | None:
        """The distinct labels, sorted; None without labels."""
        if self.labels is None:
            return None
        return sorted({label for label in self.labels if label is not None})


def find_images(
    sources: Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    label_separator: str | None = None,
    group_column: str | None = None,
    task_columns: Sequence[str] = (),
    box_columns: Sequence[str] = (),
) -> ImageList:
    """Return the images of folders, image files, glob patterns, manifests and lists, in order.

    Subfolders give labels; relative paths in a manifest or list start at its folder. Columns are
    those of a manifest, by default the first present of `PATH_COLUMNS` and, if any, of
    `LABEL_COLUMNS`. A list of label columns holds tags, 0 or 1 for each image; `label_separator`
    separates the tags in one label column. Each of `task_columns` holds the labels of one task and
    replaces the label column. The four `box_columns` hold the box of a `Crop`; they have no default,
    because a column may be called x for other reasons.

    Raises InputError if a source is missing, names no image, lacks a column, or has tags other than
    0 and 1; NoColumnsError if a column is named for a source that has no columns.
    """
    columns: dict[str, Any] = {
        "path_column": path_column,
        "label_column": label_column,
        "label_separator": label_separator,
        "group_column": group_column,
        "task_columns": task_columns,
        "box_columns": box_columns,
    }
    parts = [part for source in sources for part in _parts(os.fspath(source), columns)]
    if not parts:
        raise no_images()
    images = join_images(parts)
    if task_columns:
        tasks = {
            name: [value for part in parts for value in (part.tasks or {})[name]]
            for name in task_columns
        }
        return replace(images, labels=None, tasks=tasks)
    if not label_separator or images.labels is None:
        return images
    rows = [(label or "").split(label_separator) for label in images.labels]
    tags: list[Any] = [[tag.strip() for tag in row if tag.strip()] for row in rows]
    return replace(images, labels=None, tags=tags)


def no_images() -> InputError:
    """Return the error for an empty sequence of sources."""
    return InputError("No images were named; pass a folder, a glob pattern, files or a manifest.")


def has_columns(source: str) -> bool:
    """Return whether a source is a manifest, by its name."""
    return kind_of(source) == "manifest"


def join_images(parts: Sequence[ImageList]) -> ImageList:
    """Return the concatenation of several lists, without their tasks."""
    names = ("labels", "groups", "tags", "crops")
    columns: dict[str, Any] = {
        name: _joined([getattr(part, name) for part in parts], parts) for name in names
    }
    return ImageList([path for part in parts for path in part.paths], **columns)


def _joined(columns: list[list[Any] | None], parts: Sequence[ImageList]) -> list[Any] | None:
    if all(column is None for column in columns):
        return None
    rows = zip(columns, parts, strict=True)
    return [value for column, part in rows for value in column or [None] * len(part)]


def _parts(source: str, columns: dict[str, Any]) -> Iterator[ImageList]:
    """Yield the images of a source: a list for each manifest or list file, and for other files."""
    if is_url(source):
        raise _for_shards(source)
    for kind, group in itertools.groupby(files_of(source), lambda file: kind_of(file[0])):
        files = list(group)
        if kind == "tar":
            raise _for_shards(source)
        if kind != "manifest":
            refuse_columns(source, **columns)
        if kind == "image":
            yield list_files(files)
        elif kind == "list":
            yield from (_from_list(path) for path, _ in files)
        else:
            yield from (_from_manifest(path, **columns) for path, _ in files)


def list_files(files: Iterable[tuple[str, str | None]]) -> ImageList:
    """Return (path, label) pairs as an `ImageList`, without labels if no file has one."""
    paths, labels = map(list, zip(*files, strict=True))
    return ImageList(paths, labels if any(label is not None for label in labels) else None)


def _from_list(path: str) -> ImageList:
    paths = [name for batch in paths_of_list(path) for name in batch]
    if not paths:
        raise InputError(f"The list {printable(path)!r} names no image; write one path per line.")
    return ImageList(paths)


def refuse_columns(source: str, **asked: Any) -> None:
    """Raise NoColumnsError if a parameter names a column of a source that has no columns."""
    for parameter, given in asked.items():
        if given:
            column = given if isinstance(given, str) else ", ".join(given)
            raise NoColumnsError(
                f"{parameter} names {printable(column)!r}, but {printable(source)!r} has no "
                "columns; leave it out, or list the images in a .csv or .parquet manifest."
            )


def _for_shards(source: str) -> InputError:
    return InputError(
        f"{printable(source)!r} is a URL or holds the images themselves; use extract_shards or "
        "featuretl extract --engine loky, or list URLs of images in a manifest on this machine."
    )


def _from_manifest(
    manifest: str,
    path_column: str | None,
    label_column: str | Sequence[str] | None,
    label_separator: str | None,
    group_column: str | None,
    task_columns: Sequence[str],
    box_columns: Sequence[str],
) -> ImageList:
    schema = schema_of(manifest)
    if image_column(schema, path_column) is not None:
        raise _for_shards(manifest)

    def named(asked: str | None, usual: Sequence[str] = ()) -> str | None:
        return pick_column(manifest, schema.names, asked, usual)

    path = pick_path_column(manifest, schema.names, path_column, PATH_COLUMNS)
    label, tags, group = None, None, named(group_column)
    if not isinstance(label_column, str) and label_column is not None:
        tags = [named(name) or name for name in label_column]
    elif not task_columns:
        label = named(label_column, LABEL_COLUMNS)
    if label_separator and label is None:
        raise NoColumnsError(
            f"label_separator needs one label column; {printable(manifest)!r} has none, or several "
            "were named: name one with label_column, or leave label_separator out."
        )
    tasks = [named(name) or name for name in task_columns]
    box = [named(name) or name for name in box_columns]
    wanted = [*filter(None, (label, group)), *(tags or ()), *tasks, *box]
    table: dict[str, list[str | None]] = {name: [] for name in wanted}
    paths: list[str] = []
    for more_paths, batch in rows_of_manifest(manifest, path, list(table)):
        paths += more_paths
        for values, more in zip(table.values(), batch, strict=True):
            values += more
    if not paths:
        raise InputError(f"The manifest {printable(manifest)!r} holds 0 rows; write one per image.")
    return ImageList(
        paths,
        table[label] if label else None,
        table[group] if group else None,
        None if tags is None else _tags(manifest, {name: table[name] for name in tags}),
        {name: table[name] for name in tasks} if tasks else None,
        _crops(manifest, paths, [table[name] for name in box]) if box else None,
    )


def _crops(manifest: str, paths: list[str], box: list[list[str | None]]) -> list[Any]:
    rows = zip(paths, *(map(number_or_text, column) for column in box), strict=True)
    return [
        Crop(path, x, y, w, h, f"row {i} of {manifest}")
        for i, (path, x, y, w, h) in enumerate(rows, 1)
    ]


def _tags(manifest: str, columns: dict[str, list[str | None]]) -> list[Any]:
    """Return the tags of each row: the names of the columns that hold 1."""
    meaning = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
    rows: list[list[str]] = [[] for _ in next(iter(columns.values()), [])]
    for name, values in columns.items():
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
