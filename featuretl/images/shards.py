"""Shards: what a worker reads in one go, and how it is known again without reading its images.

Each kind has a `name` (safe to print), the number of its `images` where that is known beforehand, a
`key`, the sha256 of what identifies its images (names, labels, and sizes with times or tags of
files), and `samples`, which reads them one after another.

What a key trusts: of local files size, modification and change time and inode, where these are not
so young that another change could leave them as they are; of files behind URLs the size together
with a tag of the server's (`_TAGS`). Of files of which neither is known the key is another each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from featuretl._core.files import (
    cannot_be_read,
    contents,
    each,
    file_system,
    is_url,
)
from featuretl._core.text import printable
from featuretl.exceptions import ImageError, InputError
from featuretl.images.decode import MAX_FILE_BYTES, RACY_NS
from featuretl.images.listing import place_of
from featuretl.images.tables import (
    counted,
    memory_limit,
    names_of_classes,
    open_parquet,
    reading,
    texts,
)

State = tuple[Any, ...] | None
T = TypeVar("T")

NAME_COLUMNS = ("path", "id", "key", "__key__", "url", "file_name", "filename")

_READ_AT_ONCE = 64
_BYTES_AT_ONCE = 128 * 2**20
_UNKNOWN_SIZE = _BYTES_AT_ONCE // 4
# Of what a file system says of a file, the first that changes whenever its content does.
_TAGS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest", "generation"),
    *("mtime", "LastModified", "Last-Modified", "modified", "created"),
)


class DamagedShardError(InputError):
    """A shard that cannot be read further: what was read before is right."""


class SkipReason(NamedTuple):
    """In the place of an image: why something that could have been one is none."""

    reason: str


class Sample(NamedTuple):
    """An image on its way to the engine: a local path, bytes, or why there are none."""

    name: str
    image: str | bytes | ImageError | SkipReason
    label: str | None = None


class File(NamedTuple):
    """A local file or, with ``://``, the URL of one; `state` tells another content from this one."""

    path: str
    label: str | None = None
    state: State = None


class Shard:
    """See the module's docstring. A subclass says what its `_name`, `_identity` and `samples` are."""

    images: Any  # how many there are, None where that is not known
    _kind: str
    _name: Callable[[], str]
    _identity: Callable[[], Any]

    @property
    def name(self) -> str:
        """What to call it in a message; safe to print."""
        return printable(self._name())

    @property
    def key(self) -> str:
        """64 hex digits: the digest of what identifies its images."""
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
        """Yield local paths, and the content of URLs, some of which are read at once."""

        def size_of(file: File) -> int:
            if not is_url(file.path):
                return 0
            known = file.state and isinstance(file.state[0], int)
            return file.state[0] if file.state and known else _UNKNOWN_SIZE

        for some in batches(self.files, size_of, _READ_AT_ONCE):
            yield from _with_contents([Sample(path, path, label) for path, label, _ in some])


@dataclass(frozen=True)
class BytesShard(Shard):
    """Images in memory, as bytes of their files."""

    contents: tuple[bytes, ...]
    start: int
    images = property(lambda self: len(self.contents))
    _kind = "bytes"

    def _name(self) -> str:
        return f"images {self.start} to {self.start + len(self.contents) - 1}"

    def _identity(self) -> Any:
        return [self.start, [hashlib.sha256(content).hexdigest() for content in self.contents]]

    def samples(self) -> Iterator[Sample]:
        """Yield them."""
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
        """Read the rows, some at a time."""
        path, number = self.file.path, 0
        text = list(dict.fromkeys(filter(None, [self.label_column, self.name_column])))
        columns = list(dict.fromkeys([self.column, *text]))
        with reading(path) as file:
            limit = memory_limit(file)
            table, rows = open_parquet(file, columns, text)
            batches = table.iter_batches(rows, [self.group], columns, use_threads=False)
            for batch in counted(batches, text, limit):
                found = {c: texts(batch.column(c), path, c, table.schema_arrow) for c in text}
                none: list[str | None] = [None] * len(batch)
                labels, names = (
                    found[c] if c else none for c in (self.label_column, self.name_column)
                )
                rows_of = zip(batch.column(self.column), labels, names, strict=True)
                samples = [
                    sample_of(image.as_py(), name or f"{self.name}, row {number + i}", label, path)
                    for i, (image, label, name) in enumerate(rows_of)
                ]
                number += len(samples)
                yield from _with_contents(samples)


@dataclass(frozen=True)
class UnreadableShard(Shard):
    """A file of which not even the shards can be found, so that it is named with the other failures."""

    path: str
    error: str
    images = None
    _kind = "unreadable"

    def _name(self) -> str:
        return self.path

    def _identity(self) -> Any:  # such a shard is never finished
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
        """Read the rows; images are not decoded by this."""
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
    some: list[T] = []
    size = 0
    for item in items:
        more = size_of(item)
        if some and (len(some) >= most or size + more > _BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append(item)
        size += more
    if some:
        yield some


def sample_of(image: Any, name: str, label: str | None, table: str) -> Sample:
    """Return the sample of a table's row: bytes, or a struct of bytes and path, as datasets have.

    A relative path starts at the folder of the file `table`.
    """
    if isinstance(image, dict):
        name, image = image.get("path") or name, image.get("bytes") or image.get("path")
    if not isinstance(image, (bytes, str)):
        image = ImageError("the row holds no image")
    if isinstance(image, str):
        image = place_of(image, table)
    return Sample(str(name), image, label)


def state_of(info: dict[str, Any] | Exception) -> State:
    """Return what tells a file's content from another, of what fsspec says of it."""
    facts = {} if isinstance(info, Exception) else info
    tag = next((str(facts[name]) for name in _TAGS if facts.get(name) is not None), None)
    return _unknown() if tag is None else (facts.get("size"), tag)


def local_state(path: str) -> State:
    """Return what tells a local file's content from another; None where there is no such file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) <= RACY_NS:
        return _unknown()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def states_of(paths: Iterable[str]) -> dict[str, State]:
    """Return the states of local files and of files behind URLs, some of which are asked for at once."""
    found = {path: local_state(path) for path in paths if not is_url(path)}
    for fs, urls, places in _by_file_system([path for path in paths if is_url(path)]):
        found |= zip(urls, map(state_of, each(fs.info, places)), strict=True)
    return found


def pointed_to_by(images: Any, table: str = "") -> str:
    """Return a digest of the states of files that a column of images names in the place of bytes.

    Relative paths start at the folder of the file `table`.
    """
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
    found = states_of(sorted({place_of(p, table) for p in paths.unique().to_pylist() if p}))
    return digest("files", list(found.items())) if found else ""


def _unknown() -> State:
    """Return a state that no other equals."""
    return "unknown", os.urandom(16).hex()


def digest(kind: str, facts: Any) -> str:
    """Return a sha256, in hex, of JSON facts."""
    text = json.dumps([kind, facts], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _by_file_system(urls: list[str]) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Yield file systems, the URLs on each, and their paths in it."""
    for protocol in sorted({url.partition("://")[0] for url in urls}):
        same = [url for url in urls if url.startswith(f"{protocol}://")]
        places = [file_system(url) for url in same]
        yield places[0][0], same, [path for _, path in places]


def _with_contents(samples: list[Sample]) -> Iterator[Sample]:
    """Yield samples, those behind URLs with their content."""
    urls = [s.image for s in samples if isinstance(s.image, str) and is_url(s.image)]
    found = _fetch(urls)
    for sample in samples:
        is_behind = isinstance(sample.image, str) and sample.image in found
        yield sample._replace(image=found[str(sample.image)]) if is_behind else sample


def _fetch(urls: list[str]) -> dict[str, bytes | ImageError]:
    """Return the content of URLs, or why there is none. Raises InputError if a server fails."""
    found: dict[str, bytes | ImageError] = {}
    for fs, same, places in _by_file_system(urls):
        data = contents(fs, places, MAX_FILE_BYTES)
        found |= {url: _fetched(url, one) for url, one in zip(same, data, strict=True)}
    return found


def _fetched(url: str, found: bytes | Exception) -> bytes | ImageError:
    if isinstance(found, bytes):
        return found
    if isinstance(found, OverflowError):
        return ImageError(str(found))
    if isinstance(found, (FileNotFoundError, IsADirectoryError)):
        return ImageError("no such file")
    raise cannot_be_read(printable(url), found)
