"""From what a user names to shards, one after another: nothing here holds more than a shard."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from featuretl._files import absolute, cannot_be_read, file_system, is_url, open_file
from featuretl._validation import check_int, printable
from featuretl.exceptions import InputError
from featuretl.images.decode import is_image_name
from featuretl.images.shards import (
    NAME_COLUMNS,
    BytesShard,
    DatasetShard,
    File,
    FileShard,
    ParquetShard,
    Shard,
    TarShard,
    local_state,
    state_of,
)
from featuretl.images.sources import LABEL_COLUMNS, PATH_COLUMNS, files_of_pattern

IMAGES_PER_SHARD = 1000
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MANIFESTS = (".csv", ".txt")
_ROWS = 4096
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_shards(
    images: Any,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> Iterator[Shard]:
    """Yield the shards of what holds images, in its order.

    Parameters
    ----------
    images : path, sequence of paths or of bytes, or Hugging Face dataset
        Paths, or URLs of any file system that fsspec knows (``s3://``, ``gs://``, ``https://``, ..):

        - ``.tar`` files (``.tar.gz``, ..) in WebDataset layout; each is a shard;
        - ``.parquet`` files with the images' bytes in one of `IMAGE_COLUMNS`, plain or as a struct
          of bytes and path; each row group is a shard;
        - ``.csv`` and ``.parquet`` manifests with a column of paths or URLs, ``.txt`` lists with one
          a line, read in pieces; relative paths start at the manifest's folder;
        - folders (subfolders give labels), image files, glob patterns, and ``{000..127}`` for
          numbers.

        A dataset is one that `datasets.load_dataset` gives for a split, not a streamed one.
    path_column, label_column : str, optional
        Columns of manifests, Parquet files and datasets, the former of paths or of bytes; the latter
        also a name in the JSON of tar files. By default the first present of `IMAGE_COLUMNS` and
        `featuretl.images.sources.PATH_COLUMNS`, and of `LABEL_COLUMNS`.
    images_per_shard : int, default=1000
        Of what has no shards of its own.

    Raises
    ------
    InputError
        While the shards are read: if a source is missing, holds no image, or lacks a column.
    """
    check_int("find_shards", "images_per_shard", images_per_shard, 1)
    if hasattr(images, "features") and not isinstance(images, Sequence):
        yield from _of_dataset(images, path_column, label_column, images_per_shard)
        return
    listed = [images] if isinstance(images, (str, os.PathLike)) else images
    found = False
    for shard in _grouped(_items(listed, path_column, label_column), images_per_shard):
        found = True
        yield shard
    if not found:
        raise InputError("No images were named; give a folder, a glob, files or a manifest.")


def _grouped(items: Iterable[Shard | File | bytes], size: int) -> Iterator[Shard]:
    """Yield shards as they are, and shards of files, or of bytes, that follow one another."""
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
            yield source
        elif isinstance(source, (str, os.PathLike)):
            for path in _counted(absolute(os.fspath(source))):
                for file in _files(path):
                    yield from _of_file(file, path_column, label_column)
        else:
            raise InputError(
                "Shards are made of paths, URLs, bytes of image files or a Hugging Face dataset; got "
                f"{type(source).__name__}: for pixels in memory use extract."
            )


def _counted(path: str) -> Iterator[str]:
    """Yield what ``a-{000..127}.tar`` means; nothing is looked up."""
    found = _RANGE.search(path)
    if found is None or (not is_url(path) and Path(path).exists()):
        yield path
        return
    first, last = found[1], found[2]
    for number in range(int(first), int(last) + 1):
        counted = f"{path[: found.start()]}{number:0{len(first)}d}{path[found.end() :]}"
        yield from _counted(counted)


def _files(path: str) -> Iterator[File]:
    """Yield the files that a path, URL or pattern means; of folders, the images, with labels."""
    if is_url(path):
        yield from _remote_files(path)
    elif Path(path).is_dir():
        found = False
        for inside in _image_files(path):
            found = True
            label = inside.partition(os.sep)[0] if os.sep in inside else None
            whole = os.path.join(path, inside)
            yield File(whole, label, local_state(whole))
        if not found:
            raise InputError(f"{printable(path)!r} holds no file with an image's suffix.")
    elif Path(path).exists():
        yield File(path, None, local_state(path))
    else:
        for match in files_of_pattern(path):
            yield File(match, None, local_state(match))


def _image_files(
    folder: str, inside: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[str]:
    """Yield the images below a folder, relative to it, as `load_image_folder` orders them."""
    here = os.stat(os.path.join(folder, inside))
    if (here.st_dev, here.st_ino) in above:  # links that go round in circles
        return
    above = (*above, (here.st_dev, here.st_ino))
    with os.scandir(os.path.join(folder, inside)) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        name = os.path.join(inside, entry.name)
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(folder, name, above)
        elif is_image_name(Path(entry.name)):
            yield name


def _remote_files(url: str) -> Iterator[File]:
    fs, path = file_system(url)
    try:
        if "*" in path:
            infos, root = fs.glob(path, detail=True), None
        elif _is_file_name(path):
            infos, root = {path: fs.info(path)}, None
        else:
            infos, root = fs.find(path, detail=True), path
    except Exception as error:  # each file system has its own
        raise cannot_be_read(printable(url), error) from error
    found = False
    for name, info in sorted(infos.items()):
        if info.get("type") == "directory" or (root is not None and not is_image_name(Path(name))):
            continue
        found = True
        folder, _, rest = name[len(root or "") :].strip("/").partition("/")
        yield File(fs.unstrip_protocol(name), folder if root and rest else None, state_of(info))
    if not found:
        raise InputError(f"{printable(url)!r} holds, or matches, no image.")


def _is_file_name(path: str) -> bool:
    return path.endswith((*_TARS, *_MANIFESTS, ".parquet")) or is_image_name(Path(path))


def _of_file(
    file: File, path_column: str | None, label_column: str | None
) -> Iterator[Shard | File | bytes]:
    name = file.path.lower()
    if name.endswith(_TARS):
        yield TarShard(file, label_column)
    elif name.endswith(".parquet"):
        yield from _of_parquet(file, path_column, label_column)
    elif name.endswith(".csv"):
        yield from _of_csv(file, path_column, label_column)
    elif name.endswith(".txt"):
        yield from _of_list(file)
    else:
        yield file


def _of_parquet(
    file: File, path_column: str | None, label_column: str | None
) -> Iterator[Shard | File]:
    import pyarrow
    from pyarrow import parquet

    try:
        with open_file(file.path) as opened:
            table = parquet.ParquetFile(opened)
            schema = table.schema_arrow
            label = _column(file, schema.names, label_column, LABEL_COLUMNS)
            column = _image_column(schema, path_column)
            if column is not None:
                name = next((name for name in NAME_COLUMNS if name in schema.names), None)
                for group in range(table.num_row_groups):
                    rows = table.metadata.row_group(group).num_rows
                    yield ParquetShard(file, group, rows, column, label, name)
                return
            path = _path_column(file, schema.names, path_column)
            columns = [path, label] if label else [path]
            for batch in table.iter_batches(_ROWS, columns=columns):
                yield from _of_rows(file, batch, path, label)
    except (pyarrow.ArrowException, OSError) as error:
        raise cannot_be_read(printable(file.path), error) from error


def _of_csv(file: File, path_column: str | None, label_column: str | None) -> Iterator[File]:
    import pyarrow
    from pyarrow import csv

    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        with open_file(file.path) as opened:
            names = csv.open_csv(opened, parse_options=parse).schema.names
        path = _path_column(file, names, path_column)
        label = _column(file, names, label_column, LABEL_COLUMNS)
        # Everything is text: a label 007 stays 007, and NA is a name like any other.
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, "string"),
            include_columns=[path, label] if label else [path],
            null_values=[""],
            strings_can_be_null=True,
        )
        with open_file(file.path) as opened:
            for batch in csv.open_csv(opened, parse_options=parse, convert_options=convert):
                yield from _of_rows(file, batch, path, label)
    except (pyarrow.ArrowException, OSError) as error:
        raise cannot_be_read(printable(file.path), error) from error


def _of_rows(manifest: File, batch: Any, path: str, label: str | None) -> Iterator[File]:
    import pyarrow

    def text(name: str) -> list[Any]:
        return batch.column(batch.schema.get_field_index(name)).cast(pyarrow.string()).to_pylist()

    paths = text(path)
    if not all(paths):
        raise InputError(
            f"Column {printable(path)!r} of the manifest {printable(manifest.path)!r} must hold a "
            "path in every row; some are empty."
        )
    labels = text(label) if label else [None] * len(paths)
    for value, of_value in zip(paths, labels, strict=True):
        yield _named_in(manifest, value, of_value or None)


def _of_list(file: File) -> Iterator[File]:
    with open_file(file.path) as opened:
        for number, line in enumerate(opened):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if line.strip():
                yield _named_in(file, os.fsdecode(line.rstrip(b"\r\n")), None)


def _named_in(manifest: File, path: str, label: str | None) -> File:
    """Return a file that a manifest names; what lies behind a URL is taken never to change."""
    if is_url(path):
        return File(path, label)
    folder = manifest.path.rpartition("/")[0] if is_url(manifest.path) else None
    if folder is not None:
        return File(f"{folder}/{path}", label)
    whole = str(Path(manifest.path).parent / path)
    return File(whole, label, local_state(whole))


def _image_column(schema: Any, asked: str | None) -> str | None:
    """Return the column that holds images' bytes, plain or in a struct; None without one."""
    import pyarrow

    def holds_bytes(name: str) -> bool:
        kind = schema.field(name).type
        if pyarrow.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    names = IMAGE_COLUMNS if asked is None else (asked,)
    return next((name for name in names if name in schema.names and holds_bytes(name)), None)


def _path_column(file: File, names: list[str], asked: str | None) -> str:
    column = _column(file, names, asked, PATH_COLUMNS)
    if column is None:
        raise InputError(
            f"{printable(file.path)!r} has no column of images or paths; it has "
            f"{printable(', '.join(names))}: name the one to use with path_column."
        )
    return column


def _column(file: File, names: list[str], asked: str | None, usual: Sequence[str]) -> str | None:
    if asked is None:
        return next((name for name in usual if name in names), None)
    if asked not in names:
        raise InputError(
            f"{printable(file.path)!r} has no column {printable(asked)!r}; it has "
            f"{printable(', '.join(names))}."
        )
    return asked


def _of_dataset(
    dataset: Any, path_column: str | None, label_column: str | None, size: int
) -> Iterator[DatasetShard]:
    """Yield shards of a Hugging Face dataset; its images stay as they are encoded."""
    if not hasattr(dataset, "select") or not hasattr(dataset, "_fingerprint"):
        raise InputError(
            f"A {type(dataset).__name__} cannot be cut into shards; give one split of a dataset "
            "that is not streamed, or the paths of its Parquet or tar files."
        )
    features = dataset.features
    here, names = File("the dataset"), list(features)
    images = [name for name in names if type(features[name]).__name__ == "Image"]
    column = _column(here, names, path_column, [*images, *IMAGE_COLUMNS, *PATH_COLUMNS])
    label = _column(here, names, label_column, LABEL_COLUMNS)
    if column is None:
        column = _path_column(here, names, path_column)
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
        )
