"""EmbeddingStore: embeddings on disk, by recipe and image; docs/formats.md has the format."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from featuretl._core.parameters import as_path, check_int, parameter_error
from featuretl._core.text import SIZE_UNITS, parse_quantity
from featuretl.exceptions import ParameterError, StoreError
from featuretl.store.format import (
    DamagedFileError,
    open_view,
    publish_folder,
    space_folders,
    write_view,
)
from featuretl.store.index import SegmentIndex
from featuretl.store.keys import Recipe
from featuretl.store.local import CACHE_VARIABLE, LocalFolder
from featuretl.store.memo import Memo
from featuretl.store.record import agreeing_record, generations, golden_of, read_record
from featuretl.store.space import StoredSpace

SIZE_VARIABLE = "FEATURETL_CACHE_MAX_SIZE"


def default_cache() -> Path:
    """Return the default store's folder: ``$FEATURETL_CACHE``, or one in the user's cache."""
    import platformdirs

    named = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("featuretl", False)
    if path := as_path(named):
        return path
    raise ParameterError(
        f"The environment variable {CACHE_VARIABLE} must name a folder; got {named!r}."
    )


def default_max_size() -> int | None:
    """Return ``$FEATURETL_CACHE_MAX_SIZE`` in bytes; ParameterError if it cannot be parsed."""
    named = os.environ.get(SIZE_VARIABLE)
    try:
        return parse_quantity(named, SIZE_UNITS, "20GB") if named else None
    except ValueError as error:
        raise ParameterError(f"The environment variable {SIZE_VARIABLE}: {error}") from error


def resolve_store(cache: Any, owner: str) -> EmbeddingStore | None:
    """Return the store that `cache` of `owner` selects, or None; "auto" is an `optional` store."""
    if cache is None or isinstance(cache, EmbeddingStore):
        return cache
    if not isinstance(cache, (str, os.PathLike)) or as_path(cache) is None:
        raise parameter_error(owner, "cache", "'auto', a path, an EmbeddingStore or None", cache)
    if cache != "auto":
        return EmbeddingStore(cache)
    store = EmbeddingStore()
    store.optional = True
    with store.optionally():
        store.make_folder()
        return store
    return None


@dataclass(frozen=True)
class SpaceInfo:
    """Contents of one space; see `EmbeddingStore.info`."""

    id: str  # 64 hex digits
    recipe: Recipe  # see `featuretl.store.keys`
    rows: int
    segments: int
    bytes: int  # size of embeddings and keys
    used: float  # time of the last use, in seconds since 1970


class EmbeddingStore(LocalFolder):
    """Embeddings on disk, keyed by image content and recipe.

    Parameters
    ----------
    path : path, optional
        A folder, created on first use; by default `default_cache()`.
    max_size : int, optional
        Limit in bytes for embeddings and views. If they exceed it when an extraction ends, the
        least recently used are freed, but never the recipe just extracted. By default the value of
        the environment variable ``FEATURETL_CACHE_MAX_SIZE``, such as "20GB", or no limit.

    Attributes
    ----------
    optional : bool
        Whether extraction continues without caching if the store cannot be written, as with
        ``cache="auto"``.
    keeps : bool
        Whether the store caches embeddings; False once an optional store could not be written.

    Raises
    ------
    ParameterError
        If `path` cannot be a path, or the size limit is invalid.
    StoreError
        From methods, if the folder cannot be used, or holds a store of a newer format.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     EmbeddingStore(folder).info()
    []
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, max_size: int | None = None
    ) -> None:
        check_int("EmbeddingStore", "max_size", max_size, 0, None)
        found = default_cache() if path is None else as_path(path)
        if found is None:
            raise parameter_error("EmbeddingStore", "path", "the path of a folder", path)
        super().__init__(found)
        self.max_size = default_max_size() if max_size is None else int(max_size)
        self.memo = Memo(self.path / "memo.sqlite")
        self.index = SegmentIndex(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingStore, (str(self.path), self.max_size), {"optional": self.optional}

    def __repr__(self) -> str:
        limit = "" if self.max_size is None else f", max_size={self.max_size}"
        return f"EmbeddingStore({str(self.path)!r}{limit})"

    def _repr_html_(self) -> str:
        import pandas as pd

        spaces = [
            {
                "backbone": space.recipe.get("backbone", {}).get("name", "a medium"),
                "embeddings": space.rows,
                "MB": round(space.bytes / 1e6, 1),
            }
            for space in self.info()
        ]
        return f"<p>{escape(repr(self))}</p>" + pd.DataFrame(spaces).to_html(index=False)

    def space_names(self) -> list[str]:
        """Return the ids of all spaces that have a folder, sorted."""
        try:
            return [folder.name for folder in space_folders(self.path)]
        except OSError as error:
            raise self.unusable("read", error) from error

    def find_space(self, recipe: Recipe) -> StoredSpace | None:
        """Return the newest space of a recipe, for reading, or None if there is none."""
        records = generations(self._find_record, recipe)
        return self._stored_space(records[-1]) if records else None

    def golden(self, recipe: Recipe) -> np.ndarray | None:
        """Return the golden embedding (d,) of the newest space of a recipe; None without one."""
        records = generations(self._find_record, recipe)
        return golden_of(records[-1]) if records else None

    def space(self, identity: str) -> StoredSpace:
        """Return the space with an id, for reading; see `info`."""
        return self._stored_space(self.record(identity))

    def record(self, identity: str) -> dict[str, Any]:
        """Return the record of the space with an id; see `featuretl.store.record`."""
        try:
            return read_record(self._record_path(identity))
        except DamagedFileError as error:
            raise StoreError(
                f"{str(error.path)!r} is damaged: {error.problem}; remove its space with "
                "`featuretl cache verify --repair` to embed the images again."
            ) from error

    def open_space(
        self, recipe: Recipe, golden: np.ndarray, versions: dict[str, str]
    ) -> StoredSpace:
        """Return the space of a recipe to which this process can add rows.

        It is the newest space that agrees (cosine >= 0.99999) with `golden` (d,), float32, the
        golden image's embedding as computed now. If none agrees, it is a new one, whose record has
        the `versions` of libraries, with a warning if the recipe has older ones.
        """
        record, exists = agreeing_record(self._find_record, recipe, golden, versions)
        if not exists:
            self.make_folder()
            path = self._record_path(record["id"])
            try:
                path.parent.parent.mkdir(mode=0o700, exist_ok=True)
                publish_folder(path.parent, path.name, json.dumps(record, indent=1).encode())
            except OSError as error:
                raise self.unusable("written", error) from error
            record = self.record(record["id"])  # another process can have published it first
        return self._stored_space(record)

    def info(self) -> list[SpaceInfo]:
        """Return the contents of the store, one entry per space, largest first."""
        if not self.exists():
            return []
        sizes, infos = self.index.sizes(), []
        for name in self.space_names():
            with contextlib.suppress(FileNotFoundError):  # the space was freed meanwhile
                if record := self._find_record(name):
                    used = self._record_path(name).stat().st_mtime
                    size = sizes.get(name, (0, 0, 0))
                    infos.append(SpaceInfo(name, record["recipe"], *size, used))
        return sorted(infos, key=lambda info: -info.bytes)

    def view(self, name: str, shape: tuple[int, int], chunks: Iterator[np.ndarray]) -> np.ndarray:
        """Return the matrix cached as view `name`, as a read-only memory map, float32 (n, d).

        `name` consists of 64 hex digits that identify the content. `chunks` yields the rows,
        float32 (any, d), and is only consumed if the view is missing or damaged.
        """
        path = self.path / "views" / f"{name}.npy"
        try:
            matrix = open_view(path, shape)
        except DamagedFileError:  # or missing
            self.make_folder()
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                write_view(path, shape, chunks)
            except OSError as error:
                raise self.unusable("written", error) from error
            matrix = open_view(path, shape)
        _touch(path)
        return matrix

    def _find_record(self, identity: str) -> dict[str, Any] | None:
        """Return a space's record, or None without its folder; StoreError if it is damaged."""
        folder = self._record_path(identity).parent
        if os.path.lexists(folder):
            try:
                return self.record(identity)
            except StoreError:
                if os.path.lexists(folder):  # otherwise the space was freed meanwhile
                    raise
        return None

    def _stored_space(self, record: dict[str, Any]) -> StoredSpace:
        _touch(self._record_path(record["id"]))
        d = record["recipe"]["output"]["n_features"]
        return StoredSpace(self, self.index, record["id"], d)

    def _record_path(self, identity: str) -> Path:
        return self.path / "spaces" / identity / "space.json"


def _touch(path: Path) -> None:
    """Record that a file is used now, for `featuretl.store.collect`."""
    with contextlib.suppress(OSError):  # a read-only store
        os.utime(path)
