"""Columns of CSV and Parquet files, a batch at a time, in memory bounded by the size of the file.

A Parquet file can claim any size, and its dictionaries and prefixes can repeat one value any number
of times: `open_parquet` refuses files whose columns would take more than `EXPANSION` times their
size, before it reads them, and `text_batches` counts what values take before it makes text of them.
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
EXPANSION = 250  # a million numbered paths, as small as zstd makes them, expand 150 times

_LEAST = 16 * 2**20
_ROW = 16  # bytes that a value takes at least, but for
_WIDTHS = {"FLOAT": 4, "DOUBLE": 8}
_TEXT_ROWS, _BINARY_ROWS = 65536, 64
_BATCH_BYTES = 2**25


class MissingColumnError(InputError):
    """A named column is not there: an error of the call, not of one file."""


def pick_column(
    path: str, names: Sequence[str], asked: str | None, usual: Sequence[str] = ()
) -> str | None:
    """Return `asked`, or the first of the `usual` columns that is there; None if there is none."""
    column = next((name for name in usual if name in names), None) if asked is None else asked
    if column is not None and list(names).count(column) > 1:
        raise InputError(
            f"{printable(path)!r} has several columns {printable(column)!r}; rename one."
        )
    if column is not None and column not in names:
        raise MissingColumnError(
            f"{printable(path)!r} has no column {printable(column)!r}; it has "
            f"{printable(', '.join(names))}."
        )
    return column


def pick_path_column(
    path: str, names: Sequence[str], asked: str | None, usual: Sequence[str]
) -> str:
    """Return the column of paths. Raises InputError if there is none."""
    column = pick_column(path, names, asked, usual)
    if column is None:
        raise InputError(
            f"{printable(path)!r} has no column of images or paths (one of {', '.join(usual)}); it has "
            f"{printable(', '.join(names))}: name the one to use with path_column."
        )
    return column


@contextlib.contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """Open a file that pyarrow is to read; what goes wrong is an InputError that names it."""
    import pyarrow

    try:
        with open_file(path) as file:  # pyarrow takes no path that is not UTF-8
            yield file
    except (pyarrow.ArrowException, OSError, KeyError, UnicodeError) as error:
        raise cannot_be_read(printable(path), error) from error


def is_csv(path: str) -> bool:
    """Return whether `path` names a CSV file; tables are Parquet otherwise."""
    return path.lower().endswith(".csv")


def schema_of(path: str) -> pyarrow.Schema:
    """Return the names and types of a file's columns."""
    from pyarrow import parquet

    with reading(path) as file:
        return _open_csv(file).schema if is_csv(path) else parquet.ParquetFile(file).schema_arrow


def image_column(schema: pyarrow.Schema, asked: str | None) -> str | None:
    """Return the column that holds images' bytes, plain or in a struct; None without one."""
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
    """Return the names that Hugging Face's datasets keep for a column of class numbers."""
    try:
        info = parse_json((schema.metadata or {})[b"huggingface"])
        return tuple(map(str, info["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def names_of_classes(
    numbers: list[str | None], names: Sequence[str], path: str, column: str
) -> list[str | None]:
    """Return the names that class numbers stand for; -1 is no class.

    Raises InputError for a number without a name.
    """
    known: dict[str | None, str | None] = {str(number): name for number, name in enumerate(names)}
    known |= {None: None, "-1": None}
    strange = next((number for number in numbers if number not in known), None)
    if strange is not None:
        raise InputError(
            f"Column {printable(column)!r} of {printable(path)!r} must hold numbers of its "
            f"{len(names)} class names; got {printable(strange)}."
        )
    return [known[number] for number in numbers]


def holds_names(schema: pyarrow.Schema, column: str) -> bool:
    """Return whether a column is there, once, and holds text or whole numbers."""
    from pyarrow import types

    if schema.names.count(column) != 1:
        return False
    kind = schema.field(column).type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))


def text_batches(path: str, columns: Sequence[str]) -> Iterator[list[list[str | None]]]:
    """Yield some rows after the other of columns, as text; None for a gap, see `label_text`."""
    schema = schema_of(path)
    with reading(path) as file:
        for batch in _open_csv(file, columns) if is_csv(path) else _parquet_text(file, columns):
            yield [texts(batch.column(name), path, name, schema) for name in columns]


def counted(batches: Iterable[Any], columns: Sequence[str], limit: int) -> Iterator[Any]:
    """Yield batches. Raises OSError once the text of their columns takes more than `limit` bytes."""
    spent = 0
    for batch in batches:
        spent += sum(_size(batch.column(name)) for name in columns)
        if spent > limit:
            raise _too_large(limit)
        yield batch


def texts(
    column: pyarrow.Array, path: str, name: str, schema: pyarrow.Schema | None = None
) -> list[str | None]:
    """Return the values of a column as text, as `label_text` has it, or as `schema` names classes.

    Raises
    ------
    InputError
        If its values are lists or structs, or numbers of no class.
    """
    from pyarrow import string, types

    if types.is_dictionary(column.type):
        shared = texts(column.dictionary, path, name, schema)
        return [None if i is None else shared[i] for i in column.indices.to_pylist()]
    kind = column.type
    if types.is_nested(kind):
        raise InputError(
            f"Column {printable(name)!r} of {printable(path)!r} must hold one value in every row; it "
            f"holds {printable(kind)}."
        )
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        column = column.cast(string())
    # NumPy's float32 reads as 0.1, which Python's float would not.
    plain = column.to_numpy(zero_copy_only=False) if types.is_floating(kind) else column.to_pylist()
    found = [label_text(value) for value in plain]
    names = class_names(schema, name) if schema is not None and types.is_integer(kind) else None
    return found if names is None else names_of_classes(found, names, path, name)


def open_parquet(
    file: IO[bytes], columns: Sequence[str], text: Sequence[str] = ()
) -> tuple[parquet.ParquetFile, int]:
    """Return an open Parquet file, and how many rows of its columns may be read at once.

    `text` are those of the columns that `texts` reads: a value that rows share is read once.

    Raises
    ------
    OSError
        If the columns would take more than `EXPANSION` times the size of the file.
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
    if prefixed or not as_text:  # one value may be as large as all, and come again in each row
        largest = max((one.total_uncompressed_size for one in chunks), default=0)
        rows = max(1, min(rows, _BATCH_BYTES // max(largest, 1)))
    short = [facts.schema.column(i) for i in leaves if _is_in(paths[i], text)]
    repeated = [c.path for c in short if c.physical_type == "BYTE_ARRAY" and c.path not in prefixed]
    return parquet.ParquetFile(file, metadata=facts, read_dictionary=repeated), rows


def _is_in(leaf: str, columns: Sequence[str]) -> bool:
    """Return whether a leaf of the schema belongs to one of the columns, or to a field of one."""
    return any(f"{leaf}.".startswith(f"{name}.") for name in columns)


def _parquet_text(file: IO[bytes], columns: Sequence[str]) -> Iterator[Any]:
    limit = memory_limit(file)
    table, rows = open_parquet(file, columns, columns)
    return counted(table.iter_batches(rows, columns=list(dict.fromkeys(columns))), columns, limit)


def _open_csv(file: IO[bytes], columns: Sequence[str] = ()) -> Any:
    from pyarrow import csv

    # Everything is text: a label 007 stays 007, and NA is a name like any other.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(columns, "string"),
        include_columns=list(dict.fromkeys(columns)),
        null_values=[""],
        strings_can_be_null=True,
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    return csv.open_csv(file, parse_options=parse, convert_options=convert)


def _size(column: pyarrow.Array) -> int:
    """Return how many bytes the values of a column take, each written out."""
    from pyarrow import compute, types

    size = _ROW * len(column)
    if types.is_dictionary(column.type) and not types.is_primitive(column.type.value_type):
        lengths = compute.binary_length(column.dictionary).take(column.indices)
        return size + (compute.sum(lengths).as_py() or 0)
    return size + column.nbytes


def memory_limit(file: IO[bytes]) -> int:
    """Return how many bytes the content of a file may take in memory."""
    limit = max(_LEAST, EXPANSION * file.seek(0, os.SEEK_END))
    file.seek(0)
    return limit


def _too_large(limit: int) -> OSError:
    return OSError(
        f"its columns take over {limit:,} bytes, more than {EXPANSION} times the size of the file"
    )
