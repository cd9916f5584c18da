"""The shared store, version 1, which many machines write; docs/formats.md is the specification."""

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
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow
from pyarrow import parquet

from featuretl._core.files import absolute, contents, file_system, is_local, replace_file
from featuretl._core.parameters import as_path
from featuretl._core.text import parse_json, printable, reason_of
from featuretl.exceptions import FeatureTLError, ParameterError, StoreError, UnusableStoreError
from featuretl.store.format import DamagedFileError, npy_header, parse_matrix
from featuretl.store.keys import Recipe, json_checksum
from featuretl.store.record import agreeing_record, agrees, golden_of, parse_record

SHARED_FORMAT_VERSION = 1

_READ_TOGETHER = 256


class SharedFolder:
    """A folder, or an fsspec URL, whose files appear whole. Methods raise UnusableStoreError."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        if as_path(url) is None:
            raise ParameterError(f"A shared folder needs a valid path or URL; got {url!r}.")
        self.url = absolute(os.fsdecode(url))
        self._fs, self._root = file_system(self.url)

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedFolder, (self.url,)

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably, in place of the file of that name if there is one."""
        target = f"{self._root}/{name}"
        try:
            if is_local(self._fs):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                replace_file(Path(target), lambda partial: partial.write_bytes(data))
            else:
                self._fs.pipe_file(target, data)
        except Exception as error:  # each file system raises its own classes
            raise self._unusable("written", error) from error

    def get_all(self, names: list[str]) -> list[bytes | None]:
        """Read files in parallel; return their bytes, None for missing files."""
        found = contents(self._fs, [f"{self._root}/{name}" for name in names])
        for content in found:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise self._unusable("read", content) from content
        return [content if isinstance(content, bytes) else None for content in found]

    def names(self, folder: str) -> list[str]:
        """Return the names in a subfolder, unsorted; an empty list if there is no such folder."""
        try:
            self._fs.invalidate_cache()
            paths = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._unusable("read", error) from error
        return [path.rstrip("/").rpartition("/")[2] for path in paths]

    def _unusable(self, done: str, error: Exception) -> FeatureTLError:
        return UnusableStoreError(
            f"The shared store {printable(self.url)!r} cannot be {done} ({reason_of(error)}); its "
            "content is intact: fix the cause, and run the command again."
        )


@dataclass(frozen=True)
class ShardEntry:
    """The entry of a finished shard; docs/formats.md lists the fields."""

    key: str
    source: str
    images: int
    rows: int  # images with an embedding
    uuid: str
    files: dict[str, tuple[int, int]]  # size and CRC-32 of "npy" and "parquet"
    failures: tuple[tuple[int, str, str], ...]  # number in the shard, name, reason
    created: str

    def to_json(self) -> bytes:
        """Return the content of the entry's file."""
        facts = {"format": SHARED_FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps({**facts, "checksum": json_checksum(facts)}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ShardEntry:
        """Return the entry in a file's content. Raises ValueError if it is damaged."""
        try:
            facts = parse_json(data)
            checksum, version = facts.pop("checksum"), facts.get("format")
            if json_checksum(facts) != checksum or version != SHARED_FORMAT_VERSION:
                raise ValueError("its checksum does not match, or its format is unknown")
            failures = tuple((int(i), str(name), str(why)) for i, name, why in facts["failures"])
            files = {name: (int(size), int(crc)) for name, (size, crc) in facts["files"].items()}
            if not re.fullmatch("[0-9a-f]{32}", facts["uuid"]):  # it becomes a file name
                raise ValueError("its uuid is invalid")
            del facts["format"]
            return cls(**{**facts, "failures": failures, "files": files})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not the entry of a shard") from error


class SharedStore:
    """Embeddings in a folder, or behind a URL, to which processes on many machines write.

    Parameters
    ----------
    url : path or str
        A folder that all processes can access, or a URL of any fsspec file system (``s3://``,
        ``gs://``, ``file://``, ..). A remote file system must write files atomically, as object
        stores do.

    Raises
    ------
    ParameterError
        If `url` cannot be a path or URL, or its file system is unknown or not installed.
    StoreError
        From every method, if the store cannot be read or written, or has a newer format.

    Examples
    --------
    >>> SharedStore("memory://nothing-yet").spaces()
    []
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.folder = SharedFolder(url)
        self.url = self.folder.url

    def spaces(self) -> list[SharedSpace]:
        """Return all spaces, sorted by id."""
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
        """Return the space of a recipe to which this process can add rows.

        Parameters are those of `EmbeddingStore.open_space`: if no space agrees with `golden` (d,),
        a new one starts, with a warning. Raises StoreError in the folder of a local store.
        """
        if "index.sqlite" in self.folder.names(""):
            raise StoreError(
                f"{printable(self.url)!r} is a local embedding store; choose another folder for a "
                "shared store."
            )
        record, exists = agreeing_record(self._record, recipe, golden, versions)
        if exists:
            return SharedSpace(self.folder, record)
        name = f"spaces/{record['id']}/space.json"
        self.folder.put(name, json.dumps(record, indent=1).encode())
        return self.space(record["id"])  # if two processes put a record, the later one counts

    def _record(self, identity: str) -> dict[str, Any] | None:
        (data,) = self.folder.get_all([f"spaces/{identity}/space.json"])
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
    """The embeddings of one recipe in a `SharedStore`, to which many processes can add shards."""

    def __init__(self, folder: SharedFolder, record: dict[str, Any]) -> None:
        self.id: str = record["id"]
        self.recipe: Recipe = record["recipe"]
        self.versions: dict[str, str] = record["versions"]
        self.d: int = record["recipe"]["output"]["n_features"]
        self.golden = golden_of(record)
        self._record, self._folder = record, folder

    def agrees(self, golden: np.ndarray) -> bool:
        """Return whether a process with this golden embedding (d,) can add rows."""
        return agrees(self._record, golden)

    def keys(self) -> list[str]:
        """Return the keys of the finished shards, sorted."""
        names = self._folder.names(f"spaces/{self.id}/shards")
        return sorted(name[:-5] for name in names if len(name) == 69 and name.endswith(".json"))

    def entries(self, keys: Sequence[str]) -> Iterator[ShardEntry | None]:
        """Yield the entries of shards; None for unfinished shards and damaged entries."""
        for start in range(0, len(keys), _READ_TOGETHER):
            names = [self._entry_name(key) for key in keys[start : start + _READ_TOGETHER]]
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
        """Write rows, float32 (n, d), and their `metadata_table` durably, then the `ShardEntry`."""
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
        """Return a shard's embeddings (n, d), read-only, and its table; StoreError if damaged."""
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
        except MemoryError:  # Arrow's own MemoryError is also an ArrowException
            raise
        except (DamagedFileError, KeyError, pyarrow.ArrowException) as error:
            raise StoreError(
                f"The shard {entry.source} in the shared store {printable(self._folder.url)!r} is "
                f"damaged ({error}); remove {self._entry_name(entry.key)} there to embed the shard "
                "again."
            ) from error
        return rows, table

    def _entry_name(self, key: str) -> str:
        return f"spaces/{self.id}/shards/{key}.json"

    def _file_name(self, uuid: str, kind: str) -> str:
        folder = "embeddings" if kind == "npy" else "metadata"
        return f"spaces/{self.id}/{folder}/{uuid}.{kind}"


def metadata_table(*columns: Sequence[Any]) -> pyarrow.Table:
    """Return a table of the columns path, label, sha256 (32 bytes) and number in the shard."""
    text, digest, number = pyarrow.string(), pyarrow.binary(32), pyarrow.int32()
    types = {"path": text, "label": text, "sha256": digest, "number": number}
    return pyarrow.table(dict(zip(types, columns, strict=True)), pyarrow.schema(types))


def _checked(path: Path, data: bytes | None, expected: tuple[int, int]) -> bytes:
    """Return `data` if it has the expected size and CRC-32; raise DamagedFileError otherwise."""
    if data is None:
        raise DamagedFileError(path, "it is missing")
    if (len(data), zlib.crc32(data)) != expected:
        raise DamagedFileError(path, "its size or checksum differs")
    return data
