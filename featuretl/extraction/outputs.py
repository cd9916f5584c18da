"""Self-describing files of embeddings: ``.npy`` with a JSON sidecar, ``.npz`` and ``.parquet``.

All three hold the embeddings, float32 (n, d), and for every row the image's path and, where known,
its label, and the same metadata:
``backbone``, ``weights_sha256``, ``recipe`` (see `featuretl.store.keys`), ``class_names``,
``versions``, ``created``.

- ``OUT.npy``: the matrix; everything else is in ``OUT.npy.json``.
- ``OUT.npz``: arrays ``embeddings``, ``paths``, ``labels``, ``class_names`` and ``metadata`` (JSON
  text); no pickle. ``labels`` has "" where there is none.
- ``OUT.parquet``: columns ``path``, ``label``, ``embedding`` (fixed-size list), the metadata under
  the key ``featuretl`` of the schema.

What `export_space` writes is the same, in the latter two formats, with ``sha256`` of each image's
content, in hex, in the place of paths and labels, and the id of its ``space`` in the metadata.
"""

from __future__ import annotations

import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import featuretl
from featuretl._core.files import open_local
from featuretl._core.parameters import as_path
from featuretl._core.text import as_utf8, printable
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.extraction.extraction import Extraction
from featuretl.images.sources import ImageList
from featuretl.images.tables import memory_limit, open_parquet, text_batches
from featuretl.store.exchange import filled_spaces
from featuretl.store.format import npy_header, write_matrix
from featuretl.store.keys import Recipe
from featuretl.store.space import gather_chunks
from featuretl.store.store import EmbeddingStore, SpaceInfo

if TYPE_CHECKING:
    from sklearn.utils import Bunch

ENDINGS = (".npy", ".npz", ".parquet")

_ROWS = 4096


def save_embeddings(
    path: str | os.PathLike[str],
    extraction: Extraction,
    images: ImageList,
    *,
    skip_failures: bool = False,
) -> None:
    """Write an extraction to a self-describing file, in bounded memory.

    Parameters
    ----------
    path : path
        Ending in ``.npy``, ``.npz`` or ``.parquet``; replaced at once when all is written.
    extraction : Extraction
    images : ImageList
        The paths and labels that were extracted.
    skip_failures : bool, default=False
        Leave images without an embedding out; else their rows are NaN.

    Raises
    ------
    ParameterError
        If the ending is another, or the folder does not exist.
    StoreError
        If the file cannot be written.
    """
    target = check_output(path)
    rows = _ImageRows(extraction, images, extraction.ok if skip_failures else None)
    _write(target, rows)


def export_space(path: str | os.PathLike[str], store: EmbeddingStore, space: str = "") -> int:
    """Write all embeddings of one recipe in a store to a self-describing file, each once.

    Parameters
    ----------
    path : path
        Ending in ``.npz`` or ``.parquet``; replaced at once when all is written.
    store : EmbeddingStore
    space : str, default=""
        How the id of the recipe's space begins; see `EmbeddingStore.info`.

    Returns
    -------
    rows : int
        How many embeddings there are, in the order in which they were committed.

    Raises
    ------
    ParameterError
        If the ending is another, the folder does not exist, or not just one recipe is meant.
    StoreError
        If the store cannot be read, or the file cannot be written.
    """
    target = check_output(path, (".npz", ".parquet"))
    rows = _SpaceRows(store, _one_space(store, space))
    _write(target, rows)
    return rows.shape[0]


def load_embeddings(path: str | os.PathLike[str]) -> Bunch:
    """Read a file that `save_embeddings` wrote; nothing in it is executed.

    Parameters
    ----------
    path : path
        Ending in ``.npy`` (with its ``.npy.json`` beside it), ``.npz`` or ``.parquet``.

    Returns
    -------
    Bunch
        `embeddings`, float32 (n, d); `paths`, a list of n; `labels`, a list of n (None where there is
        none) or None; `metadata`, a dict, unchecked.

    Raises
    ------
    InputError
        If it cannot be read, or holds no embeddings with the paths of their images.
    """
    from sklearn.utils import Bunch

    source = Path(path)
    if source.suffix not in ENDINGS:
        raise InputError(
            f"A file of embeddings ends in {', '.join(ENDINGS)}; got {printable(source)!r}."
        )
    try:
        X, paths, labels, metadata = _READERS[source.suffix](source)
        if X.ndim != 2 or X.dtype.kind != "f" or not isinstance(metadata, dict):
            raise ValueError(f"its embeddings are {X.dtype} {X.shape}, not float (n, d)")
        if not _is_text(paths) or len(paths) != len(X):
            raise ValueError("it does not hold the path of each image")
        if labels is not None and (
            len(labels) != len(X) or not _is_text(labels, (str, type(None)))
        ):
            raise ValueError("it does not hold the label of each image")
    except Exception as error:  # hostile content raises anything; nothing was executed
        what = getattr(error, "strerror", None) or error
        raise InputError(
            f"{printable(source)!r} cannot be read as a file of embeddings: {printable(what)}; make it "
            "with featuretl extract -o."
        ) from error
    labels = None if labels is None else [label or None for label in labels]
    return Bunch(embeddings=X, paths=list(paths), labels=labels, metadata=metadata)


def check_output(path: str | os.PathLike[str], endings: tuple[str, ...] = ENDINGS) -> Path:
    """Return `path` if embeddings can be written there; raise ParameterError otherwise."""
    target = as_path(path) and Path(path)
    if target is None:
        raise ParameterError(f"The output must be the path of a file; got {printable(repr(path))}.")
    if target.suffix not in endings:
        raise ParameterError(
            f"The output must end in {', '.join(endings)}; got {printable(target)!r}."
        )
    if not target.parent.is_dir():
        raise ParameterError(
            f"The folder of the output {printable(target)!r} does not exist; create it first."
        )
    return target


def _one_space(store: EmbeddingStore, prefix: str) -> SpaceInfo:
    infos = filled_spaces(store, prefix)
    if len(infos) == 1:
        return infos[0]
    ids = ", ".join(f"{info.id[:12]} ({info.recipe['backbone']['name']})" for info in infos)
    raise ParameterError(
        f"{len(infos)} recipes have ids that start with {printable(prefix)!r}; say which one by the "
        f"'space' parameter, or --space: {printable(ids)}."
    )


class _Rows(Protocol):
    """The rows to write and what belongs to them."""

    shape: tuple[int, int]
    metadata: dict[str, Any]

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the embeddings, `_ROWS` at a time."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what goes beside the embeddings in an ``.npz``."""

    def columns(self, part: slice) -> dict[str, Any]:
        """Return what goes beside the embeddings in a Parquet file: pyarrow arrays, in order."""


class _SpaceRows:
    """All rows of a space, in order of commit."""

    def __init__(self, store: EmbeddingStore, info: SpaceInfo) -> None:
        self._space = store.space(info.id)
        self._keys, self._locations = self._space.all_rows()
        self.shape = (len(self._keys), self._space.d)
        self.metadata = {**metadata_of(self.shape, info.recipe), "space": info.id}

    def chunks(self) -> Iterator[np.ndarray]:
        return gather_chunks(self._space, self._locations, _ROWS)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"sha256": np.array(self._hex(slice(None)), "U64")}

    def columns(self, part: slice) -> dict[str, Any]:
        import pyarrow as pa

        return {"sha256": pa.array(self._hex(part), pa.string())}

    def _hex(self, part: slice) -> list[str]:
        text = self._keys[part].tobytes().hex()
        return [text[start : start + 64] for start in range(0, len(text), 64)]


class _ImageRows:
    """The rows of an extraction."""

    def __init__(self, extraction: Extraction, images: ImageList, keep: np.ndarray | None) -> None:
        kept = range(len(images)) if keep is None else np.flatnonzero(keep).tolist()
        labels = images.labels
        self.paths = [images.paths[i] for i in kept]
        self.labels = None if labels is None else [labels[i] for i in kept]
        self.class_names = images.class_names
        self.shape = (len(self.paths), extraction.shape[1])
        self.chunks = lambda: extraction.chunks(_ROWS, keep)
        self.metadata = {
            **metadata_of(self.shape, extraction.recipe),
            "versions": extraction.versions,
            "class_names": self.class_names,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"paths": np.array(self.paths, str)}
        if self.labels is not None:
            arrays["labels"] = np.array([label or "" for label in self.labels], str)
            arrays["class_names"] = np.array(self.class_names, str)
        return arrays

    def columns(self, part: slice) -> dict[str, Any]:
        import pyarrow as pa

        # Parquet's text is UTF-8; the bytes of a path need not be.
        columns = {"path": pa.array([as_utf8(name) for name in self.paths[part]], pa.string())}
        if self.labels is not None:
            labels = [label and as_utf8(label) for label in self.labels[part]]
            columns["label"] = pa.array(labels, pa.string())
        return columns


def metadata_of(shape: tuple[int, int], recipe: Recipe) -> dict[str, Any]:
    """Return what a file says of its embeddings (n, d) (JSON); see the module's docstring."""
    return {
        "featuretl": featuretl.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "shape": shape,
        "backbone": recipe["backbone"]["name"],
        "weights_sha256": recipe["backbone"]["tensors"],
        "recipe": recipe,
    }


def _write(path: Path, rows: _Rows) -> None:
    try:
        _WRITERS[path.suffix](path, rows)
    except OSError as error:
        raise StoreError(
            f"{printable(path)!r} cannot be written ({error.strerror or error}); the embeddings "
            "are in the cache: run the command again with another place."
        ) from error


def _write_npy(path: Path, rows: _ImageRows) -> None:
    described = {
        **rows.metadata,
        "paths": rows.paths,
        "labels": rows.labels,
    }

    def write(partial: Path) -> None:
        partial.write_text(json.dumps(described), encoding="utf-8")
        # Inside: a sidecar that cannot be written leaves the matrix as it was, too.
        write_matrix(path, rows.shape, rows.chunks())

    replace_file(path.with_name(f"{path.name}.json"), write)


def _write_npz(path: Path, rows: _Rows) -> None:
    arrays = {**rows.arrays(), "metadata": np.array(json.dumps(rows.metadata))}

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                member.write(npy_header(rows.shape, np.dtype("<f4")))
                for chunk in rows.chunks():
                    member.write(chunk.data)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    replace_file(path, write)


def _write_parquet(path: Path, rows: _Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    d = rows.shape[1]
    fields = [pa.field(name, none.type) for name, none in rows.columns(slice(0)).items()]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), d)))
    schema = pa.schema(fields, metadata={"featuretl": json.dumps(rows.metadata)})

    def write(partial: Path) -> None:
        # A file, for pyarrow takes no path that is not UTF-8.
        with partial.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
            for number, chunk in enumerate(rows.chunks()):
                columns = rows.columns(slice(number * _ROWS, number * _ROWS + len(chunk)))
                values = pa.FixedSizeListArray.from_arrays(pa.array(chunk.ravel(), pa.float32()), d)
                writer.write_batch(pa.record_batch([*columns.values(), values], schema=schema))

    replace_file(path, write)


_WRITERS: dict[str, Callable[[Path, Any], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}


def _is_text(values: Any, kinds: Any = str) -> bool:
    return isinstance(values, list) and all(isinstance(value, kinds) for value in values)


def _read_npy(path: Path) -> tuple[np.ndarray, Any, Any, Any]:
    with open_local(path), open_local(path.with_name(f"{path.name}.json")) as file:
        described = json.load(file)
    X = np.load(path, mmap_mode="r", allow_pickle=False)
    return X, described["paths"], described["labels"], described


def _read_npz(path: Path) -> tuple[np.ndarray, Any, Any, Any]:
    with open_local(path) as file, np.load(file, allow_pickle=False) as arrays:
        _check_members(arrays.zip, memory_limit(file))
        labels = arrays["labels"].tolist() if "labels" in arrays else None
        metadata = json.loads(str(arrays["metadata"]))
        return arrays["embeddings"], arrays["paths"].tolist(), labels, metadata


def _check_members(archive: zipfile.ZipFile, limit: int) -> None:
    """Raise ValueError, before anything is allocated, for arrays that are larger than they can be."""
    members = archive.infolist()
    if sum(member.file_size for member in members) > limit:
        raise ValueError(f"its arrays take over {limit:,} bytes, too many for the size of the file")
    for member in members:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"its array {printable(member.filename)!r} claims more than it holds")


def _read_parquet(path: Path) -> tuple[np.ndarray, Any, Any, Any]:
    with open_local(path) as file:
        table, _ = open_parquet(file, ["embedding"])
        column = table.read(["embedding"]).column("embedding").combine_chunks()
    X = column.flatten().to_numpy().reshape(len(column), -1)
    names = [name for name in ("path", "label") if name in table.schema_arrow.names]
    text: list[list[str | None]] = [[] for _ in names]
    for batch in text_batches(os.fspath(path), names):
        for values, more in zip(text, batch, strict=True):
            values += more
    paths, labels = [*text, None][:2]
    return X, paths, labels, json.loads(table.schema_arrow.metadata[b"featuretl"])


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, Any, Any, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, which then takes its place at once."""
    partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
