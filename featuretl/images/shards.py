"""Shards: what a worker reads in one go, and how it is known again without reading its images.

Each kind has a `name` (safe to print), the number of its `images` where that is known beforehand, a
`key`, the sha256 of what identifies its images (names, labels, and sizes with times or tags of
files), and `samples`, which reads them one after another.

Tar files are in WebDataset layout: consecutive members whose names are equal up to the first dot
of the last part are one sample, the one that ends like an image is the image, and the label stands
in ``.cls``, or in ``.json`` under one of `LABEL_COLUMNS`. They are read as streams and never
unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from featuretl._files import cannot_be_read, contents, file_system, is_url, open_file
from featuretl._validation import as_utf8, printable
from featuretl.exceptions import ImageError
from featuretl.images.decode import MAX_FILE_BYTES, SUFFIXES
from featuretl.images.sources import LABEL_COLUMNS

State = tuple[Any, ...] | None

NAME_COLUMNS = ("path", "id", "key", "__key__", "url", "file_name", "filename")

_READ_AT_ONCE = 64
_MAX_LABEL_BYTES = 2**20
# Of what a file system says of a file, the first that changes whenever its content does.
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "created")


class Sample(NamedTuple):
    """An image on its way to the engine: a local path, bytes, or why there are none."""

    name: str
    image: str | bytes | ImageError
    label: str | None = None


class Shard(Protocol):
    """See the module's docstring."""

    @property
    def name(self) -> str:
        """What to call it in a message; safe to print."""

    @property
    def images(self) -> int | None:
        """How many images it holds, where that is known."""

    @property
    def key(self) -> str:
        """64 hex digits."""

    def samples(self) -> Iterator[Sample]:
        """Read the images, in order. Raises InputError if the shard itself cannot be read."""


class File(NamedTuple):
    """A local file or, with ``://``, the URL of one; `state` tells another content from this one."""

    path: str
    label: str | None = None
    state: State = None


@dataclass(frozen=True)
class FileShard:
    """Consecutive files."""

    files: tuple[File, ...]

    @property
    def name(self) -> str:
        """The first file, and how many more."""
        return f"{printable(self.files[0].path)} and {len(self.files) - 1} more"

    @property
    def images(self) -> int:
        """How many files."""
        return len(self.files)

    @property
    def key(self) -> str:
        """Of paths, labels and states."""
        return _digest("files", self.files)

    def samples(self) -> Iterator[Sample]:
        """Yield local paths, and the content of URLs, some of which are read at once."""
        for start in range(0, len(self.files), _READ_AT_ONCE):
            files = self.files[start : start + _READ_AT_ONCE]
            contents = _fetch([file.path for file in files if is_url(file.path)])
            for path, label, _ in files:
                yield Sample(path, contents.get(path, path), label)


@dataclass(frozen=True)
class BytesShard:
    """Images in memory, as bytes of their files."""

    contents: tuple[bytes, ...]
    start: int

    @property
    def name(self) -> str:
        """Where they stand in the input."""
        return f"images {self.start} to {self.start + len(self.contents) - 1}"

    @property
    def images(self) -> int:
        """How many."""
        return len(self.contents)

    @property
    def key(self) -> str:
        """Of their content."""
        digests = [hashlib.sha256(content).hexdigest() for content in self.contents]
        return _digest("bytes", [self.start, digests])

    def samples(self) -> Iterator[Sample]:
        """Yield them."""
        for number, content in enumerate(self.contents, self.start):
            yield Sample(f"image {number}", content)


@dataclass(frozen=True)
class TarShard:
    """A tar file in WebDataset layout, compressed or not."""

    file: File
    label_column: str | None = None
    images: int | None = None

    @property
    def name(self) -> str:
        """Its path."""
        return printable(self.file.path)

    @property
    def key(self) -> str:
        """Of its path and state."""
        return _digest("tar", [self.file, self.label_column])

    def samples(self) -> Iterator[Sample]:
        """Read the file as a stream, a sample at a time."""
        try:
            with open_file(self.file.path) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                stem, parts = "", {}  # type: str, dict[str, bytes | ImageError]
                for member in tar:
                    if not member.isreg():
                        continue
                    this, suffix = _stem_and_suffix(member.name)
                    if this != stem:
                        yield from self._sample(stem, parts)
                        stem, parts = this, {}
                    parts[suffix] = _content(tar, member, suffix)
                yield from self._sample(stem, parts)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise cannot_be_read(self.name, error) from error

    def _sample(self, stem: str, parts: dict[str, bytes | ImageError]) -> Iterator[Sample]:
        suffix = next((suffix for suffix in parts if f".{_last(suffix)}" in SUFFIXES), None)
        if suffix is not None:
            name = as_utf8(f"{self.file.path}/{stem}.{suffix}")
            yield Sample(name, parts[suffix], _label_of(parts, self.label_column))


@dataclass(frozen=True)
class ParquetShard:
    """A row group of a Parquet file that holds the images themselves."""

    file: File
    group: int
    images: int
    column: str
    label_column: str | None
    name_column: str | None

    @property
    def name(self) -> str:
        """Its path and number."""
        return f"{printable(self.file.path)}, row group {self.group}"

    @property
    def key(self) -> str:
        """Of the file's path and state, the group and the columns."""
        columns = [self.column, self.label_column, self.name_column]
        return _digest("parquet", [self.file, self.group, columns])

    def samples(self) -> Iterator[Sample]:
        """Read the rows, some at a time."""
        import pyarrow
        from pyarrow import parquet

        columns = [self.column, self.label_column, self.name_column]
        number = 0
        try:
            with open_file(self.file.path) as file:
                batches = parquet.ParquetFile(file).iter_batches(
                    _READ_AT_ONCE, [self.group], list(filter(None, columns)), use_threads=False
                )
                for batch in batches:
                    for row in batch.to_pylist():
                        yield self._sample(row, number)
                        number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise cannot_be_read(self.name, error) from error

    def _sample(self, row: dict[str, Any], number: int) -> Sample:
        label, name = (row[c] if c else None for c in (self.label_column, self.name_column))
        return sample_of(row[self.column], name or f"{self.name}, row {number}", label)


@dataclass(frozen=True)
class DatasetShard:
    """Consecutive rows of a Hugging Face dataset; workers map its Arrow files."""

    dataset: Any
    fingerprint: str
    start: int
    column: str
    label_column: str | None
    label_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """Which rows."""
        return f"rows {self.start} to {self.start + len(self.dataset) - 1} of the dataset"

    @property
    def images(self) -> int:
        """How many rows."""
        return len(self.dataset)

    @property
    def key(self) -> str:
        """Of the dataset's fingerprint, the rows and the columns."""
        rows = [self.start, len(self.dataset), self.column, self.label_column]
        return _digest("dataset", [self.fingerprint, rows])

    def samples(self) -> Iterator[Sample]:
        """Read the rows; images are not decoded by this."""
        for number, row in enumerate(self.dataset, self.start):
            label = row[self.label_column] if self.label_column else None
            if self.label_names and isinstance(label, int):
                label = self.label_names[label] if label >= 0 else None
            yield sample_of(row[self.column], f"row {number}", label)


def sample_of(image: Any, name: str, label: Any) -> Sample:
    """Return the sample of a table's row: bytes, or a struct of bytes and path, as datasets have."""
    if isinstance(image, dict):
        name, image = image.get("path") or name, image.get("bytes") or image.get("path")
    if not isinstance(image, (bytes, str)):
        image = ImageError("the row holds no image")
    return Sample(str(name), image, None if label is None else str(label))


def state_of(info: dict[str, Any]) -> State:
    """Return what tells a file's content from another, of what fsspec says of it."""
    tag = next((str(info[name]) for name in _TAGS if info.get(name) is not None), None)
    return info.get("size"), tag


def local_state(path: str) -> State:
    """Return what tells a local file's content from another; None where there is no such file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _digest(kind: str, facts: Any) -> str:
    text = json.dumps([kind, facts], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _fetch(urls: list[str]) -> dict[str, bytes | ImageError]:
    """Return the content of URLs, or why there is none. Raises InputError if a server fails."""
    found: dict[str, bytes | ImageError] = {}
    for protocol in sorted({url.partition("://")[0] for url in urls}):
        same = [url for url in urls if url.startswith(f"{protocol}://")]
        places = [file_system(url) for url in same]
        data = contents(places[0][0], [path for _, path in places])
        found.update({url: _fetched(url, one) for url, one in zip(same, data, strict=True)})
    return found


def _fetched(url: str, found: bytes | Exception) -> bytes | ImageError:
    if isinstance(found, bytes):
        return found
    if isinstance(found, (FileNotFoundError, IsADirectoryError)):
        return ImageError("no such file")
    raise cannot_be_read(printable(url), found)


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and what follows that dot."""
    folder, slash, last = name.rpartition("/")
    first, _, suffix = last.partition(".")
    return folder + slash + first, suffix.lower()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> bytes | ImageError:
    """Return a member's bytes, if they may be of use and are not too many."""
    last = _last(suffix)
    is_image = f".{last}" in SUFFIXES
    limit = MAX_FILE_BYTES if is_image else _MAX_LABEL_BYTES
    if not is_image and last not in ("cls", "json"):
        return b""
    if member.size > limit:
        return ImageError(f"{member.size} bytes, over the limit of {limit}")
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _label_of(parts: dict[str, bytes | ImageError], column: str | None) -> str | None:
    for suffix, data in parts.items():
        if not isinstance(data, bytes):
            continue
        if _last(suffix) == "cls":
            return data.decode(errors="backslashreplace").strip() or None
        if _last(suffix) == "json":
            try:
                facts = json.loads(data)
            except ValueError:
                continue
            wanted = LABEL_COLUMNS if column is None else (column,)
            found = [facts.get(name) for name in wanted] if isinstance(facts, dict) else []
            label = next((value for value in found if value is not None), None)
            if label is not None:
                return str(label)
    return None


def _last(suffix: str) -> str:
    return suffix.rpartition(".")[2]
