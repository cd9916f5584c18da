"""The shared store's format, version 1: embeddings that many machines write without a database.

A shared store is a folder that all of them see, or a URL of an object store::

    STORE/
      spaces/<id>/                one folder per space, named by `featuretl.store.keys.space_id`
        space.json                as in a local store (`featuretl.store.format`)
        shards/<key>.json         one entry per finished shard: what it holds, and in which files
        embeddings/<uuid>.npy     n embeddings of one space
        metadata/<uuid>.parquet   the same n rows: path, label, sha256, and number in the shard

**Shard.** The images that are committed together: a tar file, a row group, 1,000 consecutive files.
Its key, 64 hex digits, is the sha256 of what identifies its images without reading them
(`featuretl.images.shards`). Row i of the ``.npy`` file (NumPy format 1.0, C order, little-endian,
float32, shape (n, d)) belongs to row i of the Parquet file; images without an embedding are in
neither, but in the entry, each with its number, name and reason. A shard of which no image has an
embedding has no files.

**Entry.** A JSON object: ``format``, ``key``, ``source`` (its name), ``images`` (how many it holds),
``rows`` (n), ``uuid``, ``files`` (size and CRC-32 of both), ``failures``, ``created``, and
``checksum``, the CRC-32 of the canonical JSON of all else.

**Writing.** First the two files, under a name that nothing else has; then the entry, by one atomic
put: a shard is finished when it has an entry. Whoever writes a shard a second time writes other
files and replaces the entry: readers of the old one keep what they have. No file is changed, and no
lock is needed. Files in no entry were left by a process that was killed, and are never read.

**Reading.** Files count only if they have the size and the CRC-32 of the entry.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from featuretl._core.text import parse_json, printable
from featuretl.exceptions import StoreError
from featuretl.store.folder import SharedFolder
from featuretl.store.format import DamagedFileError, npy_header, parse_matrix
from featuretl.store.keys import Recipe, json_checksum
from featuretl.store.record import agreeing_record, agrees, golden_of, parse_record

if TYPE_CHECKING:
    import pyarrow

SHARED_FORMAT_VERSION = 1

_READ_AT_ONCE = 256


@dataclass(frozen=True)
class ShardEntry:
    """The entry of a finished shard; see the module's docstring."""

    key: str
    source: str
    images: int
    rows: int  # images with an embedding
    uuid: str
    files: dict[str, tuple[int, int]]  # size and CRC-32 of "npy" and "parquet"
    failures: tuple[tuple[int, str, str], ...]  # number in the shard, name, reason
    created: str

    def to_json(self) -> bytes:
        """Return the entry's file."""
        facts = {"format": SHARED_FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps({**facts, "checksum": json_checksum(facts)}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ShardEntry:
        """Return the entry that a file holds. Raises ValueError unless it is whole."""
        try:
            facts = parse_json(data)
            checksum, version = facts.pop("checksum"), facts.get("format")
            if json_checksum(facts) != checksum or version != SHARED_FORMAT_VERSION:
                raise ValueError("its checksum or format is another")
            failures = tuple((int(i), str(name), str(why)) for i, name, why in facts["failures"])
            files = {name: (int(size), int(crc)) for name, (size, crc) in facts["files"].items()}
            if not re.fullmatch("[0-9a-f]{32}", facts["uuid"]):  # it becomes a file's name
                raise ValueError("its uuid is none")
            del facts["format"]
            return cls(**{**facts, "failures": failures, "files": files})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not the entry of a shard") from error


class SharedStore:
    """Embeddings in a folder, or behind a URL, that processes on many machines write.

    Parameters
    ----------
    url : path or str
        A folder that all processes see, or a URL of any file system that fsspec knows (``s3://``,
        ``gs://``, ``file://``, ..). A file system other than the local one must put files whole, as
        object stores do.

    Raises
    ------
    ParameterError
        If it cannot be a path or URL, or its file system is not known or not installed.
    StoreError
        From every method, if the store cannot be read or written, or is of a newer format.

    Examples
    --------
    >>> SharedStore("memory://nothing-yet").spaces()
    []
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.folder = SharedFolder(url)
        self.url = self.folder.url

    def spaces(self) -> list[SharedSpace]:
        """Return the spaces, by id."""
        return [self.space(identity) for identity in sorted(self.folder.names("spaces"))]

    def space(self, identity: str) -> SharedSpace:
        """Return the space with an id."""
        record = self._record(identity)
        if record is None:
            raise StoreError(
                f"The shared store {printable(self.url)!r} has no space {printable(identity)}; it "
                "was removed meanwhile."
            )
        return SharedSpace(self.folder, record)

    def open_space(
        self, recipe: Recipe, golden: np.ndarray, versions: dict[str, str]
    ) -> SharedSpace:
        """Return the space of a recipe that rows made by its `golden` (d,) may be added to.

        As `EmbeddingStore.open_space`: where an older one does not agree, a new generation is
        started, with a warning. Raises StoreError in the folder of a local store.
        """
        if "index.sqlite" in self.folder.names(""):
            raise StoreError(
                f"{printable(self.url)!r} is a local embedding store; a shared one needs a folder of "
                "its own."
            )
        record, exists = agreeing_record(self._record, recipe, golden, versions)
        if exists:
            return SharedSpace(self.folder, record)
        name = f"spaces/{record['id']}/space.json"
        self.folder.put(name, json.dumps(record, indent=1).encode())
        return self.space(record["id"])  # of two that were made together the later one counts

    def _record(self, identity: str) -> dict[str, Any] | None:
        data = self.folder.get(f"spaces/{identity}/space.json")
        try:
            if data is not None:
                return parse_record(data, Path(identity) / "space.json")
            if "shards" not in self.folder.names(f"spaces/{identity}"):
                return None
            raise DamagedFileError(Path(identity) / "space.json", "its record is missing")
        except DamagedFileError as error:
            raise StoreError(
                f"The space {printable(identity)} of the shared store {printable(self.url)!r} is "
                f"damaged: {error.problem}; remove its folder to embed its images again."
            ) from error


class SharedSpace:
    """The embeddings of one recipe in a `SharedStore`; any number of processes may add shards."""

    def __init__(self, folder: SharedFolder, record: dict[str, Any]) -> None:
        self.id: str = record["id"]
        self.recipe: Recipe = record["recipe"]
        self.versions: dict[str, str] = record["versions"]
        self.d: int = record["recipe"]["output"]["n_features"]
        self.golden = golden_of(record)
        self._record, self._folder = record, folder

    def agrees(self, golden: np.ndarray) -> bool:
        """Return whether what gives this golden embedding (d,) may add rows."""
        return agrees(self._record, golden)

    def keys(self) -> list[str]:
        """Return the keys of the finished shards, sorted."""
        names = self._folder.names(f"spaces/{self.id}/shards")
        return sorted(name[:-5] for name in names if len(name) == 69 and name.endswith(".json"))

    def entries(self, keys: Sequence[str]) -> Iterator[ShardEntry | None]:
        """Yield the entries of shards; None where a shard is not finished, or its entry damaged."""
        for start in range(0, len(keys), _READ_AT_ONCE):
            names = [self._entry_name(key) for key in keys[start : start + _READ_AT_ONCE]]
            for data in self._folder.get_all(names):
                try:
                    yield None if data is None else ShardEntry.from_json(data)
                except ValueError:
                    yield None

    def entry(self, key: str) -> ShardEntry | None:
        """Return the entry of a shard; see `entries`."""
        return next(self.entries([key]))

    def put(
        self,
        key: str,
        source: str,
        images: int,
        rows: np.ndarray,
        table: pyarrow.Table,
        failures: Sequence[tuple[int, str, str]] = (),
    ) -> ShardEntry:
        """Write a shard's `rows` (n, d), float32, and `metadata_table` durably, then its entry.

        `source` is its name, safe to print; see `ShardEntry` for the others.
        """
        from pyarrow import parquet

        uuid, files = uuid4().hex, {}
        if len(rows):
            npy = npy_header(rows.shape, rows.dtype) + np.ascontiguousarray(rows).data.cast("B")
            parquet.write_table(table, written := io.BytesIO())
            for name, data in (("npy", npy), ("parquet", written.getvalue())):
                self._folder.put(self._file_name(uuid, name), data)
                files[name] = (len(data), zlib.crc32(data))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = ShardEntry(key, source, images, len(rows), uuid, files, tuple(failures), created)
        self._folder.put(self._entry_name(key), entry.to_json())
        return entry

    def load(self, entry: ShardEntry) -> tuple[np.ndarray, pyarrow.Table]:
        """Return a shard's embeddings (n, d), read-only, and its table of n rows.

        Raises StoreError if they are not those that were written.
        """
        import pyarrow
        from pyarrow import parquet

        if not entry.rows:
            return np.empty((0, self.d), np.float32), metadata_table([], [], [], [])
        names = {name: self._file_name(entry.uuid, name) for name in ("npy", "parquet")}
        try:
            contents = self._folder.get_all(list(names.values()))
            npy, written = (
                _checked(Path(path), data, entry.files[name])
                for (name, path), data in zip(names.items(), contents, strict=True)
            )
            rows = parse_matrix(Path(names["npy"]), npy, (entry.rows, self.d))
            table = parquet.read_table(io.BytesIO(written))
            if len(table) != entry.rows:
                raise DamagedFileError(Path(names["parquet"]), f"{len(table)} rows")
        except MemoryError:  # Arrow's is an ArrowException
            raise
        except (DamagedFileError, KeyError, pyarrow.ArrowException) as error:
            raise StoreError(
                f"The shard {entry.source} in the shared store {printable(self._folder.url)!r} is "
                f"damaged ({error}); remove {self._entry_name(entry.key)} there, and it is "
                "embedded again."
            ) from error
        return rows, table

    def _entry_name(self, key: str) -> str:
        return f"spaces/{self.id}/shards/{key}.json"

    def _file_name(self, uuid: str, kind: str) -> str:
        folder = "embeddings" if kind == "npy" else "metadata"
        return f"spaces/{self.id}/{folder}/{uuid}.{kind}"


def metadata_table(
    paths: Sequence[str],
    labels: Sequence[str | None],
    keys: Sequence[bytes],
    numbers: Sequence[int],
) -> pyarrow.Table:
    """Return the table of a shard's rows: path, label, sha256 (32 bytes) and number in the shard."""
    import pyarrow as pa

    columns = {
        "path": pa.array(paths, pa.string()),
        "label": pa.array(labels, pa.string()),
        "sha256": pa.array(keys, pa.binary(32)),
        "number": pa.array(numbers, pa.int32()),
    }
    return pa.table(columns)


def _checked(path: Path, data: bytes | None, expected: tuple[int, int]) -> bytes:
    """Return the `data` of a file of the `expected` size and CRC-32; DamagedFileError for others."""
    if data is None:
        raise DamagedFileError(path, "it is missing")
    if (len(data), zlib.crc32(data)) != expected:
        raise DamagedFileError(path, "its size or checksum is another")
    return data
