"""Columns of CSV and Parquet files, read in batches, in memory bounded by the size of the file.

Parquet can claim any size, and repeat one value any number of times: see `open_parquet`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from featuretl._core.files import cannot_be_read, open_file
from featuretl._core.text import parse_json, printable
from featuretl._learning.labels import label_text
from featuretl.exceptions import InputError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")
PATH_COLUMNS = ("path", "file", "filename", "filepath", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category")
EXPANSION = 250  # a million numbered paths, compressed by zstd, expand 150 times

_MIN_LIMIT = 16 * 2**20
_WIDTHS = {"FLOAT": 4, "DOUBLE": 8}  # bytes per value
_ROW = 16  # bytes per value, at least, of the other types
_TEXT_ROWS, _BINARY_ROWS = 65536, 64
_BATCH_BYTES = 2**25


class MissingColumnError(InputError):
    """A named column is missing: an error of the call, not of one file."""


def pick_column(
    path: str, names: Sequence[str], asked: str | None, usual: Sequence[str] = ()
) -> str | None:
    """Return `asked`, or the first of the `usual` columns that is present, or None."""
    column = next((name for name in usual if name in names), None) if asked is None else asked
    file, name = printable(path), printable(column)
    if column is not None and list(names).count(column) > 1:
        raise InputError(f"{file!r} has several columns {name!r}; rename one.")
    if column is not None and column not in names:
        have = printable(", ".join(names))
        raise MissingColumnError(f"{file!r} has no column {name!r}; it has {have}.")
    return column


def pick_path_column(
    path: str, names: Sequence[str], asked: str | None, usual: Sequence[str]
) -> str:
    """Return the column of paths. Raises InputError if there is none."""
    column = pick_column(path, names, asked, usual)
    if column is None:
        raise InputError(
            f"{printable(path)!r} has no column of images or paths (one of {', '.join(usual)}); it "
            f"has {printable(', '.join(names))}: name a column with path_column."
        )
    return column


@contextlib.contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """Open a file for pyarrow; errors become an InputError that names the file."""
    import pyarrow

    try:
        with open_file(path) as file:  # pyarrow accepts only paths in UTF-8
            yield file
    except (pyarrow.ArrowException, OSError, KeyError, UnicodeError) as error:
        raise cannot_be_read(printable(path), error) from error


def is_csv(path: str) -> bool:
    """Return whether `path` names a CSV file; other tables are Parquet."""
    return path.lower().endswith(".csv")


def schema_of(path: str) -> pyarrow.Schema:
    """Return the names and types of a file's columns."""
    from pyarrow import parquet

    with reading(path) as file:
        return _open_csv(file).schema if is_csv(path) else parquet.ParquetFile(file).schema_arrow


def image_column(schema: pyarrow.Schema, asked: str | None) -> str | None:
    """Return the column that holds the bytes of images, plain or in a struct, or None."""
    from pyarrow import binary, binary_view, large_binary, types

    def holds_bytes(name: str) -> bool:
        kind = schema.field(name).type
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return kind in (binary(), large_binary(), binary_view())

    names = IMAGE_COLUMNS if asked is None else (asked,)
    return next((name for name in names if name in schema.names and holds_bytes(name)), None)


def class_names(schema: pyarrow.Schema, column: str) -> tuple[str, ...] | None:
    """Return the class names that Hugging Face datasets store for a column of class numbers."""
    try:
        info = parse_json((schema.metadata or {})[b"huggingface"])
        return tuple(map(str, info["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def names_of_classes(
    numbers: list[str | None], names: Sequence[str], path: str, column: str
) -> list[str | None]:
    """Return the names of class numbers; -1 is no class. Raises InputError for other numbers."""
    known: dict[str | None, str | None] = {str(number): name for number, name in enumerate(names)}
    known |= {None: None, "-1": None}
    unknown = next((number for number in numbers if number not in known), None)
    if unknown is not None:
        raise InputError(
            f"Column {printable(column)!r} of {printable(path)!r} must hold numbers of its "
            f"{len(names)} class names; got {printable(unknown)}."
        )
    return [known[number] for number in numbers]


def holds_names(schema: pyarrow.Schema, column: str) -> bool:
    """Return whether the schema has one such column, of text or integers."""
    from pyarrow import types

    if schema.names.count(column) != 1:
        return False
    kind = schema.field(column).type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))


def text_batches(path: str, columns: Sequence[str]) -> Iterator[list[list[str | None]]]:
    """Yield batches of columns as text, as `label_text` returns it: None for a missing value."""
    schema = schema_of(path)
    with reading(path) as file:
        if is_csv(path):
            batches = _open_csv(file, columns)
        else:
            limit = memory_limit(file)
            table, rows = open_parquet(file, columns, columns)
            found = table.iter_batches(rows, columns=list(dict.fromkeys(columns)))
            batches = within_limit(found, columns, limit)
        for batch in batches:
            yield [texts(batch.column(name), path, name, schema) for name in columns]


def within_limit(batches: Iterable[Any], columns: Sequence[str], limit: int) -> Iterator[Any]:
    """Yield batches. Raises OSError when the text of `columns` exceeds `limit` bytes in total."""
    size = 0
    for batch in batches:
        size += sum(_size(batch.column(name)) for name in columns)
        if size > limit:
            raise _too_large(limit)
        yield batch


def texts(
    column: pyarrow.Array, path: str, name: str, schema: pyarrow.Schema | None = None
) -> list[str | None]:
    """Return a column as text, as `label_text` returns it, or as the class names in `schema`.

    Raises InputError if its values are lists or structs, or numbers without a class.
    """
    from pyarrow import string, types

    if types.is_dictionary(column.type):
        shared = texts(column.dictionary, path, name, schema)
        return [None if i is None else shared[i] for i in column.indices.to_pylist()]
    kind = column.type
    if types.is_nested(kind):
        raise InputError(
            f"Column {printable(name)!r} of {printable(path)!r} must hold one value in every row; "
            f"got {printable(kind)}."
        )
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        column = column.cast(string())
    # float32 0.1 is '0.1' in NumPy, but '0.10000000149011612' as a Python float.
    plain = column.to_numpy(zero_copy_only=False) if types.is_floating(kind) else column.to_pylist()
    found = [label_text(value) for value in plain]
    names = class_names(schema, name) if schema is not None and types.is_integer(kind) else None
    return found if names is None else names_of_classes(found, names, path, name)


def open_parquet(
    file: IO[bytes], columns: Sequence[str], text: Sequence[str] = ()
) -> tuple[parquet.ParquetFile, int]:
    """Return an open Parquet file, and the number of rows per batch that bounds the memory.

    Of `text`, the columns that `texts` reads, repeated values are read once. Raises OSError before
    it reads columns that would take more than `EXPANSION` times the size of the file.
    """
    from pyarrow import parquet

    limit = memory_limit(file)
    facts = parquet.read_metadata(file)
    paths = [facts.schema.column(i).path for i in range(facts.num_columns)]
    leaves = [i for i, leaf in enumerate(paths) if _is_in(leaf, columns)]
    as_text = set(text) >= set(columns)
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in leaves]
    claimed = sum(
        max(one.total_uncompressed_size, _WIDTHS.get(one.physical_type, _ROW) * one.num_values)
        for one in chunks
    )
    if max(claimed, _ROW * facts.num_rows) > limit:
        raise _too_large(limit)
    prefixed = {one.path_in_schema for one in chunks if "DELTA_BYTE_ARRAY" in one.encodings}
    rows = _TEXT_ROWS if as_text and not prefixed else _BINARY_ROWS
    if prefixed or not as_text:  # one value may be as large as all, and repeat in each row
        largest = max((one.total_uncompressed_size for one in chunks), default=0)
        rows = max(1, min(rows, _BATCH_BYTES // max(largest, 1)))
    short = [facts.schema.column(i) for i in leaves if _is_in(paths[i], text)]
    repeated = [c.path for c in short if c.physical_type == "BYTE_ARRAY" and c.path not in prefixed]
    return parquet.ParquetFile(file, metadata=facts, read_dictionary=repeated), rows


def _is_in(leaf: str, columns: Sequence[str]) -> bool:
    """Return whether a leaf of the schema is one of the columns, or a field of one."""
    return any(f"{leaf}.".startswith(f"{name}.") for name in columns)


def _open_csv(file: IO[bytes], columns: Sequence[str] = ()) -> Any:
    from pyarrow import csv

    # All columns are text: the label 007 stays 007, and NA is a name like any other.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(columns, "string"),
        include_columns=list(dict.fromkeys(columns)),
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    return csv.open_csv(file, parse_options=parse, convert_options=convert)


def _size(column: pyarrow.Array) -> int:
    """Return the bytes that the values of a column take, without sharing."""
    from pyarrow import compute, types

    size = _ROW * len(column)
    if types.is_dictionary(column.type) and not types.is_primitive(column.type.value_type):
        lengths = compute.binary_length(column.dictionary).take(column.indices)
        return size + (compute.sum(lengths).as_py() or 0)
    return size + column.nbytes


def memory_limit(file: IO[bytes]) -> int:
    """Return the maximum number of bytes that the content of a file may take in memory."""
    limit = max(_MIN_LIMIT, EXPANSION * file.seek(0, os.SEEK_END))
    file.seek(0)
    return limit


def _too_large(limit: int) -> OSError:
    return OSError(
        f"its columns take over {limit:,} bytes, more than {EXPANSION} times the size of the file"
    )
