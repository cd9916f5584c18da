"""Finds the shards of the sources that a user names; holds one shard in memory at a time."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from featuretl._core.files import absolute, cannot_be_read, file_system, is_url, without_scheme
from featuretl._core.parameters import check_int
from featuretl._core.text import printable
from featuretl.exceptions import InputError, NoColumnsError
from featuretl.images.decode import is_image_name
from featuretl.images.listing import files_of, is_hidden, kind_of, paths_of_list, rows_of_manifest
from featuretl.images.shards import (
    NAME_COLUMNS,
    BytesShard,
    DatasetShard,
    File,
    FileShard,
    ParquetShard,
    Shard,
    UnreadableShard,
    digest,
    digest_of_paths,
    local_state,
    state_of,
    states_of,
)
from featuretl.images.sources import no_images, refuse_columns
from featuretl.images.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    PATH_COLUMNS,
    MissingColumnError,
    holds_names,
    image_column,
    open_parquet,
    pick_column,
    pick_path_column,
    reading,
    schema_of,
)
from featuretl.images.tar import TarShard

IMAGES_PER_SHARD = 1000

# Bounds the rows of a shard in memory: a dictionary can repeat one image any number of times.
_FEW_IMAGES, _SMALLEST_IMAGE = 10_000, 32  # images, bytes
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_shards(
    images: Any,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Iterator[Shard]:
    """Yield the shards of images, in order; see `featuretl.extract_shards`. Raises InputError."""
    check_int("find_shards", "images_per_shard", images_per_shard, 1)
    if hasattr(images, "features") and not isinstance(images, Sequence):
        yield from _shards_of_dataset(images, path_column, label_column, images_per_shard)
        return
    listed = [images] if isinstance(images, (str, os.PathLike)) else images
    shards = _grouped(_items(listed, path_column, label_column), images_per_shard)
    first = next(shards, None)
    if first is None:
        raise no_images()
    yield first
    yield from shards


def _grouped(items: Iterable[Shard | File | bytes], size: int) -> Iterator[Shard]:
    """Yield shards unchanged, and group consecutive files, or bytes, into shards."""
    start = 0
    for kind, group in itertools.groupby(items, type):
        while part := list(itertools.islice(group, size)):
            if issubclass(kind, File):
                yield FileShard(tuple(part))  # type: ignore[arg-type]
            elif issubclass(kind, bytes):
                yield BytesShard(tuple(part), start)  # type: ignore[arg-type]
            else:
                yield from part  # type: ignore[misc]
            start += len(part)


def _items(
    sources: Iterable[Any], path_column: str | None, label_column: str | None
) -> Iterator[Shard | File | bytes]:
    for source in sources:
        if isinstance(source, bytes):
            refuse_columns("bytes", path_column=path_column, label_column=label_column)
            yield source
        elif isinstance(source, (str, os.PathLike)):
            if not os.fspath(source):  # it would mean the working folder
                raise InputError("A source of images is empty text; give a path or URL.")
            for path in _expanded(absolute(os.fspath(source))):
                for file in _files(path):
                    try:
                        yield from _shards_of_file(
                            file, os.fspath(source), path_column, label_column
                        )
                    except (MissingColumnError, NoColumnsError):
                        raise
                    except InputError as error:
                        yield UnreadableShard(file.path, str(error))
        else:
            raise InputError(
                "Shards are made of paths, URLs, bytes of image files or a Hugging Face dataset; "
                f"got {type(source).__name__}; use extract for crops and pixels in memory."
            )


def _expanded(path: str) -> Iterator[str]:
    """Yield the paths that a range such as ``a-{000..127}.tar`` stands for."""
    found = _RANGE.search(path)
    if found is None or (not is_url(path) and os.path.exists(path)):
        yield path
        return
    first, last = found[1], found[2]
    for number in range(int(first), int(last) + 1):
        numbered = f"{path[: found.start()]}{number:0{len(first)}d}{path[found.end() :]}"
        yield from _expanded(numbered)


def _files(path: str) -> Iterator[File]:
    """Yield the files that a path, URL or pattern names; a folder yields its images with labels."""
    path = without_scheme(path)
    if is_url(path):
        yield from _remote_files(path)
    else:
        for name, label in files_of(path):
            yield File(name, label, local_state(name))


def _remote_files(url: str) -> Iterator[File]:
    fs, path = file_system(url)
    try:
        if "*" in path:
            infos, root = fs.glob(path, detail=True), None
        elif kind_of(path) != "image" or is_image_name(Path(path)):
            infos, root = {path: fs.info(path)}, None
        else:
            infos, root = fs.find(path, detail=True), path
    except Exception as error:  # each file system has its own errors
        raise cannot_be_read(printable(url), error) from error
    found = False
    for name, info in sorted(infos.items()):
        if info.get("type") == "directory" or (root is not None and not is_image_name(Path(name))):
            continue
        if is_hidden(name[len(root or "") :], path):
            continue
        found = True
        folder, _, rest = name[len(root or "") :].strip("/").partition("/")
        yield File(fs.unstrip_protocol(name), folder if root and rest else None, state_of(info))
    if not found:
        raise InputError(f"{printable(url)!r} holds, or matches, no image.")


def _shards_of_file(
    file: File, source: str, path_column: str | None, label_column: str | None
) -> Iterator[Shard | File | bytes]:
    kind = kind_of(file.path)
    if kind == "tar":
        refuse_columns(source, path_column=path_column)
        yield TarShard(file, label_column)
    elif kind == "manifest":
        yield from _shards_of_table(file, path_column, label_column)
    else:
        refuse_columns(source, path_column=path_column, label_column=label_column)
        if kind == "image":
            yield file
        else:
            for paths in paths_of_list(file.path):
                yield from _with_states(paths)


def _shards_of_table(
    file: File, path_column: str | None, label_column: str | None
) -> Iterator[Shard | File]:
    schema = schema_of(file.path)
    label = pick_column(file.path, schema.names, label_column, LABEL_COLUMNS)
    column = image_column(schema, path_column)
    if column is not None:
        name = next((name for name in NAME_COLUMNS if holds_names(schema, name)), None)
        yield from _row_groups(file, column, label, name)
        return
    path = pick_path_column(file.path, schema.names, path_column, PATH_COLUMNS)
    for paths, labels in rows_of_manifest(file.path, path, [label] if label else []):
        yield from _with_states(paths, *labels)


def _row_groups(
    file: File, column: str, label: str | None, name: str | None
) -> Iterator[ParquetShard]:
    paths = f"{column}.path"
    with reading(file.path) as opened:
        limit = max(_FEW_IMAGES, opened.seek(0, os.SEEK_END) // _SMALLEST_IMAGE)
        table, rows = open_parquet(opened, [paths], [paths])
        for group in range(table.num_row_groups):
            facts = table.metadata.row_group(group)
            columns = [facts.column(i) for i in range(facts.num_columns)]
            chunks = {chunk.path_in_schema: chunk for chunk in columns}
            held = chunks.get(f"{column}.bytes") or chunks[column]
            known = held.statistics is not None and held.statistics.has_null_count
            nulls = held.statistics.null_count if known else 0
            if held.num_values - nulls > limit:
                raise InputError(
                    f"{printable(file.path)!r} claims {held.num_values - nulls:,} images in one "
                    f"row group, more than the {limit:,} that a file of its size can hold."
                )
            pointed_to = ""
            if (nulls or not known) and paths in chunks:
                batches = table.iter_batches(rows, [group], [paths])
                found = [digest_of_paths(batch.column(column), file.path) for batch in batches]
                pointed_to = digest("files", found)
            yield ParquetShard(file, group, facts.num_rows, column, label, name, pointed_to)


def _with_states(paths: list[str], labels: list[str | None] | None = None) -> Iterator[File]:
    states = states_of(paths)
    for path, label in zip(paths, labels or [None] * len(paths), strict=True):
        yield File(path, label, states[path])


def _shards_of_dataset(
    dataset: Any, path_column: str | None, label_column: str | None, size: int
) -> Iterator[DatasetShard]:
    """Yield shards of a Hugging Face dataset; its images stay encoded."""
    if not hasattr(dataset, "select") or not hasattr(dataset, "_fingerprint"):
        raise InputError(
            f"A {type(dataset).__name__} cannot be split into shards; pass one split of a dataset "
            "that is not streamed, or the paths of its Parquet or tar files."
        )
    features = dataset.features
    here, names = "the dataset", list(features)
    images = [name for name in names if type(features[name]).__name__ == "Image"]
    usual = list(dict.fromkeys([*images, *IMAGE_COLUMNS, *PATH_COLUMNS]))
    column = pick_path_column(here, names, path_column, usual)
    label = pick_column(here, names, label_column, LABEL_COLUMNS)
    label_names = getattr(features[label], "names", None) if label else None
    plain = dataset.with_format(None).select_columns([column, label] if label else [column])
    if column in images:
        plain = plain.cast_column(column, type(features[column])(decode=False))
    for start in range(0, len(dataset), size):
        part = plain.select(range(start, min(start + size, len(dataset))))
        yield DatasetShard(
            part,
            dataset._fingerprint,
            start,
            column,
            label,
            tuple(label_names) if label_names else None,
            digest_of_paths(part.select_columns([column]).with_format("arrow")[:].column(column)),
        )
