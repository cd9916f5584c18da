"""Shards: the units of work of a sharded extraction, identified without reading their images."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from featuretl._core.files import cannot_be_read, contents, each, file_system, is_url
from featuretl._core.text import printable
from featuretl.exceptions import ImageError, InputError
from featuretl.images.decode import MAX_FILE_BYTES, RACY_NS
from featuretl.images.listing import resolve_path
from featuretl.images.tables import (
    memory_limit,
    names_of_classes,
    open_parquet,
    reading,
    texts,
    within_limit,
)

State = tuple[Any, ...] | None
T = TypeVar("T")

NAME_COLUMNS = ("path", "id", "key", "__key__", "url", "file_name", "filename")

_BATCH_BYTES = 128 * 2**20
_UNKNOWN_SIZE = _BATCH_BYTES // 4
# Facts of fsspec file systems that change with the content of a file; the first one present counts.
_TAGS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "generation"),
    *("mtime", "LastModified", "Last-Modified", "modified", "created"),
)


class DamagedShardError(InputError):
    """A shard cannot be read any further; the samples read so far are correct."""


class SkipReason(NamedTuple):
    """Takes the place of an image: why a file that looks like one is skipped."""

    reason: str


class Sample(NamedTuple):
    """An image for the engine: a local path, bytes, or the reason why there are none."""

    name: str
    image: str | bytes | ImageError | SkipReason
    label: str | None = None


class File(NamedTuple):
    """A local path or a URL of a file; `state` changes with its content."""

    path: str
    label: str | None = None
    state: State = None


class Shard:
    """Base class of the shards; subclasses define `_name`, `_identity` and `samples`."""

    images: Any  # their number, None if unknown
    _kind: str
    _name: Callable[[], str]
    _identity: Callable[[], Any]

    @property
    def name(self) -> str:
        """The name of the shard in messages; safe to print."""
        return printable(self._name())

    @property
    def key(self) -> str:
        """The sha256, in hex, of what identifies the images."""
        return digest(self._kind, self._identity())

    def samples(self) -> Iterator[Sample]:
        """Read the images, in order. Raises InputError if the shard itself cannot be read."""
        raise NotImplementedError


@dataclass(frozen=True)
class FileShard(Shard):
    """Consecutive files."""

    files: tuple[File, ...]
    images = property(lambda self: len(self.files))
    _kind = "files"

    def _name(self) -> str:
        return f"{self.files[0].path} and {len(self.files) - 1} more"

    def _identity(self) -> Any:
        return self.files

    def samples(self) -> Iterator[Sample]:
        """Yield local paths, and the contents of URLs, which are read in parallel."""

        def size_of(file: File) -> int:
            if not is_url(file.path):
                return 0
            size = file.state[0] if file.state else None
            return size if isinstance(size, int) else _UNKNOWN_SIZE

        for batch in batches(self.files, size_of, 64):
            yield from _with_contents([Sample(path, path, label) for path, label, _ in batch])


@dataclass(frozen=True)
class BytesShard(Shard):
    """Images in memory, as the bytes of their files."""

    contents: tuple[bytes, ...]
    start: int
    images = property(lambda self: len(self.contents))
    _kind = "bytes"

    def _name(self) -> str:
        return f"images {self.start} to {self.start + len(self.contents) - 1}"

    def _identity(self) -> Any:
        return [self.start, [hashlib.sha256(content).hexdigest() for content in self.contents]]

    def samples(self) -> Iterator[Sample]:
        """Yield the images."""
        for number, content in enumerate(self.contents, self.start):
            yield Sample(f"image {number}", content)


@dataclass(frozen=True)
class ParquetShard(Shard):
    """A row group of a Parquet file that holds the images themselves."""

    file: File
    group: int
    images: int
    column: str
    label_column: str | None
    name_column: str | None
    pointed_to: str = ""
    _kind = "parquet"

    def _name(self) -> str:
        return f"{self.file.path}, row group {self.group}"

    def _identity(self) -> Any:
        columns = [self.column, self.label_column, self.name_column]
        return [self.file, self.group, columns, self.pointed_to]

    def samples(self) -> Iterator[Sample]:
        """Read the rows in batches."""
        path, number = self.file.path, 0
        text = list(dict.fromkeys(filter(None, [self.label_column, self.name_column])))
        columns = list(dict.fromkeys([self.column, *text]))
        with reading(path) as file:
            limit = memory_limit(file)
            table, rows = open_parquet(file, columns, text)
            batches = table.iter_batches(rows, [self.group], columns, use_threads=False)
            for batch in within_limit(batches, text, limit):
                found: dict[str | None, list[str | None]] = {
                    name: texts(batch.column(name), path, name, table.schema_arrow) for name in text
                }
                found[None] = [None] * len(batch)
                labels, names = found[self.label_column], found[self.name_column]
                values = zip(batch.column(self.column), labels, names, strict=True)
                samples = [
                    sample_of(image.as_py(), name or f"{self.name}, row {number + i}", label, path)
                    for i, (image, label, name) in enumerate(values)
                ]
                number += len(samples)
                yield from _with_contents(samples)


@dataclass(frozen=True)
class UnreadableShard(Shard):
    """A file whose shards cannot be listed; reading it raises the error, so that it is reported."""

    path: str
    error: str
    images = None
    _kind = "unreadable"

    def _name(self) -> str:
        return self.path

    def _identity(self) -> Any:  # no output ever holds such a shard
        return [self.path, self.error]

    def samples(self) -> Iterator[Sample]:
        """Raise InputError."""
        raise InputError(self.error)


@dataclass(frozen=True)
class DatasetShard(Shard):
    """Consecutive rows of a Hugging Face dataset; workers map its Arrow files."""

    dataset: Any
    fingerprint: str
    start: int
    column: str
    label_column: str | None
    label_names: tuple[str, ...] | None = None
    pointed_to: str = ""

    images = property(lambda self: len(self.dataset))
    _kind = "dataset"

    def _name(self) -> str:
        return f"rows {self.start} to {self.start + len(self.dataset) - 1} of the dataset"

    def _identity(self) -> Any:
        rows = [self.start, len(self.dataset), self.column, self.label_column]
        return [self.fingerprint, rows, self.pointed_to]

    def samples(self) -> Iterator[Sample]:
        """Read the rows without decoding their images."""
        labels: list[str | None] = [None] * len(self.dataset)
        if self.label_column:
            table = self.dataset.select_columns([self.label_column]).with_format("arrow")[:]
            column = table.column(self.label_column).combine_chunks()
            labels = texts(column, "the dataset", self.label_column)
            if self.label_names:
                labels = names_of_classes(
                    labels, self.label_names, "the dataset", self.label_column
                )
        for number, row in enumerate(self.dataset):
            name = f"row {self.start + number}"
            yield from _with_contents([sample_of(row[self.column], name, labels[number], "")])


def batches(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yield up to `most` items at a time, of up to 128 MiB together unless one is larger."""
    batch: list[T] = []
    size = 0
    for item in items:
        more = size_of(item)
        if batch and (len(batch) >= most or size + more > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += more
    if batch:
        yield batch


def sample_of(image: Any, name: str, label: str | None, table: str) -> Sample:
    """Return the sample of a row of `table`; `image` is bytes, a path, or a struct of both."""
    if isinstance(image, dict):
        name, image = image.get("path") or name, image.get("bytes") or image.get("path")
    if not isinstance(image, (bytes, str)):
        image = ImageError("the row holds no image")
    if isinstance(image, str):
        image = resolve_path(image, table)
    return Sample(str(name), image, label)


def state_of(info: dict[str, Any] | Exception) -> State:
    """Return the state of a file from the facts that fsspec reports."""
    facts = {} if isinstance(info, Exception) else info
    tag = next((str(facts[name]) for name in _TAGS if facts.get(name) is not None), None)
    return _unknown() if tag is None else (facts.get("size"), tag)


def local_state(path: str) -> State:
    """Return the state of a local file; None if there is no such file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) <= RACY_NS:
        return _unknown()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def states_of(paths: Iterable[str]) -> dict[str, State]:
    """Return the states of local files and, requested in parallel, of files behind URLs."""
    found = {path: local_state(path) for path in paths if not is_url(path)}
    for fs, urls, inside in _by_file_system([path for path in paths if is_url(path)]):
        found |= zip(urls, map(state_of, each(fs.info, inside)), strict=True)
    return found


def digest_of_paths(images: Any, table: str = "") -> str:
    """Return a digest of the states of files named in a column, relative to the file `table`."""
    from pyarrow import compute, types

    if types.is_struct(images.type):
        names = [field.name for field in images.type]
        if "path" not in names:
            return ""
        paths = compute.struct_field(images, "path")
        if "bytes" in names:
            paths = paths.filter(compute.is_null(compute.struct_field(images, "bytes")))
    else:
        paths = images
        if not (types.is_string(paths.type) or types.is_large_string(paths.type)):
            return ""
    found = states_of(sorted({resolve_path(p, table) for p in paths.unique().to_pylist() if p}))
    return digest("files", list(found.items())) if found else ""


def _unknown() -> State:
    """Return a state that differs from every other."""
    return "unknown", os.urandom(16).hex()


def digest(kind: str, facts: Any) -> str:
    """Return the sha256, in hex, of JSON facts."""
    text = json.dumps([kind, facts], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _by_file_system(urls: list[str]) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Yield each file system, the URLs on it, and their paths there."""
    for protocol in sorted({url.partition("://")[0] for url in urls}):
        same = [url for url in urls if url.startswith(f"{protocol}://")]
        systems, paths = zip(*map(file_system, same), strict=True)
        yield systems[0], same, list(paths)


def _with_contents(samples: list[Sample]) -> Iterator[Sample]:
    """Yield samples; URLs become their contents. Raises InputError if a server fails."""
    urls = [s.image for s in samples if isinstance(s.image, str) and is_url(s.image)]
    found: dict[Any, bytes | ImageError] = {}
    for fs, same, paths in _by_file_system(urls):
        data = contents(fs, paths, MAX_FILE_BYTES)
        found |= {url: _fetched(url, one) for url, one in zip(same, data, strict=True)}
    for sample in samples:
        is_fetched = isinstance(sample.image, str) and sample.image in found
        yield sample._replace(image=found[sample.image]) if is_fetched else sample


def _fetched(url: str, found: bytes | Exception) -> bytes | ImageError:
    if isinstance(found, bytes):
        return found
    if isinstance(found, OverflowError):
        return ImageError(str(found))
    if isinstance(found, (FileNotFoundError, IsADirectoryError)):
        return ImageError("no such file")
    raise cannot_be_read(printable(url), found)
