"""Self-describing files of embeddings, ``.npy``, ``.npz`` and ``.parquet``; see docs/formats.md."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import featuretl
from featuretl._core.files import check_output, open_local, replace_file
from featuretl._core.text import as_utf8, printable
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.extraction.extraction import Extraction
from featuretl.images.crops import BOX, box_columns
from featuretl.images.sources import ImageList
from featuretl.images.tables import memory_limit, open_parquet, text_batches
from featuretl.store.exchange import filled_spaces
from featuretl.store.format import npy_header
from featuretl.store.keys import Recipe
from featuretl.store.lookup import keys_list
from featuretl.store.store import EmbeddingStore, SpaceInfo

if TYPE_CHECKING:
    import pyarrow
    from sklearn.utils import Bunch

ENDINGS = (".npy", ".npz", ".parquet")

_ROWS = 4096
_ARRAYS = {"path": "paths", "label": "labels"}
_Contents = tuple[np.ndarray, Any, Any, Any, np.ndarray | None]


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
        File name ending in ``.npy``, ``.npz`` or ``.parquet``. An existing file is replaced
        atomically.
    extraction : Extraction
    images : ImageList
        The paths and labels of the extracted images.
    skip_failures : bool, default=False
        Omit images without an embedding; by default their rows are NaN.

    Raises
    ------
    ParameterError, StoreError
        If the ending is not one of these, the folder does not exist, or it cannot be written.
    """
    target = check_output(path, ENDINGS)
    rows = _rows_of_images(extraction, images, extraction.ok if skip_failures else None)
    _write(target, rows)


def export_space(path: str | os.PathLike[str], store: EmbeddingStore, space: str = "") -> int:
    """Write a store's embeddings of one recipe to a ``.npz`` or ``.parquet`` file.

    `space` is a prefix of the id of the recipe's space. Returns the number of embeddings. Raises
    ParameterError or StoreError.
    """
    target = check_output(path, (".npz", ".parquet"))
    rows = _rows_of_space(store, _one_space(store, space))
    _write(target, rows)
    return rows.metadata["shape"][0]


def load_embeddings(path: str | os.PathLike[str]) -> Bunch:
    """Read a file written by `save_embeddings`, without executing anything in it.

    Parameters
    ----------
    path : path
        A ``.npy`` file, with its ``.npy.json`` in the same folder, ``.npz`` or ``.parquet`` file.

    Returns
    -------
    Bunch
        `embeddings`, float32 (n, d); `paths`, a list of n; `labels`, a list of n with None for a
        missing label, or None; `boxes`, for crops float64 (n, 4) of x, y, w, h, or None;
        `metadata`, a dict, unchecked.

    Raises
    ------
    InputError
        If the file cannot be read, or lacks the path of an embedding's image.
    """
    from sklearn.utils import Bunch

    source = Path(path)
    if source.suffix not in ENDINGS:
        raise InputError(
            f"A file of embeddings ends in {', '.join(ENDINGS)}; got {printable(source)!r}."
        )
    try:
        X, paths, labels, metadata, boxes = _FORMATS[source.suffix][1](source)
        if X.ndim != 2 or X.dtype.kind != "f" or not isinstance(metadata, dict):
            raise ValueError(f"its embeddings are {X.dtype} {X.shape}, not float (n, d)")
        if not _is_list_of(str, paths, len(X)):
            raise ValueError("it does not hold the path of each image")
        if labels is not None and not _is_list_of((str, type(None)), labels, len(X)):
            raise ValueError("it does not hold the label of each image")
        if boxes is not None and (boxes.shape != (len(X), 4) or boxes.dtype.kind != "f"):
            raise ValueError("it does not hold the box of each image")
    except Exception as error:  # hostile content raises any exception; nothing was executed
        what = getattr(error, "strerror", None) or error
        raise InputError(
            f"{printable(source)!r} cannot be read as a file of embeddings: {printable(what)}; "
            "create it with featuretl extract -o."
        ) from error
    labels = None if labels is None else [label or None for label in labels]
    return Bunch(embeddings=X, paths=list(paths), labels=labels, boxes=boxes, metadata=metadata)


def _one_space(store: EmbeddingStore, prefix: str) -> SpaceInfo:
    infos = filled_spaces(store, prefix)
    if len(infos) == 1:
        return infos[0]
    ids = ", ".join(f"{info.id[:12]} ({info.recipe['backbone']['name']})" for info in infos)
    raise ParameterError(
        f"{len(infos)} recipes have ids that start with {printable(prefix)!r}; choose one with the "
        f"'space' parameter, or --space: {printable(ids)}."
    )


@dataclass(frozen=True)
class _Rows:
    """The rows to write: chunks of embeddings, and functions that return a slice of a column."""

    metadata: dict[str, Any]
    chunks: Callable[[], Iterator[np.ndarray]]
    columns: dict[str, Callable[[slice], list[Any]]]


def _rows_of_space(store: EmbeddingStore, info: SpaceInfo) -> _Rows:
    space = store.space(info.id)
    keys, locations = space.all_rows()
    shape = (len(keys), space.d)

    metadata = metadata_of(shape, info.recipe) | {"space": info.id}
    chunks = partial(space.chunks, locations, _ROWS)
    columns = {"sha256": lambda part: [key.hex() for key in keys_list(keys[part])]}
    return _Rows(metadata, chunks, columns)


def _rows_of_images(extraction: Extraction, images: ImageList, keep: np.ndarray | None) -> _Rows:
    indices = range(len(images)) if keep is None else np.flatnonzero(keep).tolist()
    shape = (len(indices), math.prod(extraction.shape[1:]))
    columns: dict[str, Callable[[slice], list[Any]]] = {}
    boxes = box_columns(images.images)
    for name, values in {"path": images.paths, **boxes, "label": images.labels}.items():
        if values is not None:
            columns[name] = [values[i] for i in indices].__getitem__
    metadata = metadata_of(shape, extraction.recipe)
    metadata |= {"versions": extraction.versions, "class_names": images.class_names}
    return _Rows(metadata, partial(extraction.chunks, _ROWS, keep), columns)


def metadata_of(shape: tuple[int, int], recipe: Recipe) -> dict[str, Any]:
    """Return the metadata (JSON) of embeddings of shape (n, d); see the module's docstring."""
    return {
        "featuretl": featuretl.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "shape": shape,
        "backbone": recipe["backbone"]["name"],
        "weights_sha256": recipe["backbone"]["tensors"],
        "recipe": recipe,
    }


@contextlib.contextmanager
def writing(path: Path, kept_in: str = "cache") -> Iterator[None]:
    """Turn an OSError into a StoreError that names where the embeddings are still available."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{printable(path)!r} cannot be written ({error.strerror or error}); the embeddings "
            f"are in the {kept_in}: run the command again with another output path."
        ) from error


def write_parquet(
    path: Path,
    columns: pyarrow.Schema,
    parts: Iterable[tuple[pyarrow.Table, np.ndarray]],
    dtype: str,
    metadata: dict[str, Any],
) -> None:
    """Write a Parquet file in parts: each is a table with `columns` and its embeddings, (n, d)."""
    import pyarrow as pa
    from pyarrow import parquet

    d = metadata["shape"][1]
    kind = pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), d)
    schema = columns.append(pa.field("embedding", kind))
    schema = schema.with_metadata({"featuretl": json.dumps(metadata)})

    def write(temporary: Path) -> None:
        # An open file, because pyarrow accepts no path that is not UTF-8.
        with temporary.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
            for table, rows in parts:
                values = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), d)
                writer.write_table(table.append_column("embedding", values).cast(schema))

    replace_file(path, write)


def _write(path: Path, rows: _Rows) -> None:
    with writing(path):
        _FORMATS[path.suffix][0](path, rows)


def _write_parquet(path: Path, rows: _Rows) -> None:
    import pyarrow as pa

    def table(part: slice) -> pyarrow.Table:
        # Text in Parquet is UTF-8; a path may hold other bytes.
        texts = {
            name: get(part) if name in BOX else [v and as_utf8(v) for v in get(part)]
            for name, get in rows.columns.items()
        }
        kinds = {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(BOX, pa.float64())}
        return pa.table({name: pa.array(values, kinds[name]) for name, values in texts.items()})

    def parts() -> Iterator[tuple[pyarrow.Table, np.ndarray]]:
        start = 0
        for chunk in rows.chunks():
            yield table(slice(start, start + len(chunk))), chunk
            start += len(chunk)

    write_parquet(path, table(slice(0)).schema, parts(), "float32", rows.metadata)


def _write_npy(path: Path, rows: _Rows) -> None:
    columns = {name: get(slice(None)) for name, get in rows.columns.items()}
    described = {**rows.metadata, "paths": columns.pop("path"), "labels": None}
    described |= {_ARRAYS.get(name, name): values for name, values in columns.items()}

    def write_matrix(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines(_npy(rows))

    def write(sidecar: Path) -> None:
        sidecar.write_text(json.dumps(described), encoding="utf-8")
        # Nested, so that an unwritable sidecar leaves the existing matrix unchanged.
        replace_file(path, write_matrix)

    replace_file(path.with_name(f"{path.name}.json"), write)


def _write_npz(path: Path, rows: _Rows) -> None:
    arrays = {"metadata": np.array(json.dumps(rows.metadata))}
    for name, get in rows.columns.items():
        values = get(slice(None)) if name in BOX else [v or "" for v in get(slice(None))]
        arrays[_ARRAYS.get(name, name)] = np.array(values, float if name in BOX else str)
    if "label" in rows.columns:
        arrays["class_names"] = np.array(rows.metadata["class_names"], str)

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                member.writelines(_npy(rows))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    replace_file(path, write)


def _npy(rows: _Rows) -> Iterator[bytes | memoryview]:
    yield npy_header(rows.metadata["shape"], np.dtype("<f4"))
    for chunk in rows.chunks():
        yield np.ascontiguousarray(chunk, "<f4").data


def _is_list_of(kinds: Any, values: Any, n: int) -> bool:
    return (
        isinstance(values, list) and len(values) == n and all(isinstance(v, kinds) for v in values)
    )


def _boxes(columns: Any) -> np.ndarray | None:
    found = [np.array(columns[name], float) for name in BOX if name in columns]
    return np.stack(found, axis=1) if found else None


def _read_npy(path: Path) -> _Contents:
    with open_local(path), open_local(path.with_name(f"{path.name}.json")) as file:
        described = json.load(file)
    X = np.load(path, mmap_mode="r", allow_pickle=False)
    return X, described["paths"], described["labels"], described, _boxes(described)


def _read_npz(path: Path) -> _Contents:
    with open_local(path) as file, np.load(file, allow_pickle=False) as arrays:
        _check_members(arrays.zip, memory_limit(file))
        labels = arrays["labels"].tolist() if "labels" in arrays else None
        metadata = json.loads(str(arrays["metadata"]))
        paths = arrays["paths"].tolist()
        return arrays["embeddings"], paths, labels, metadata, _boxes(arrays)


def _check_members(archive: zipfile.ZipFile, limit: int) -> None:
    """Raise ValueError, before memory is allocated, for arrays larger than the file can hold."""
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


def _read_parquet(path: Path) -> _Contents:
    with open_local(path) as file:
        table, _ = open_parquet(file, ["embedding", *BOX])
        found = table.read(["embedding", *BOX])
    column = found.column("embedding").combine_chunks()
    columns = {name: found.column(name).to_numpy() for name in BOX if name in found.schema.names}
    X = column.flatten().to_numpy().reshape(len(column), -1)
    names = [name for name in ("path", "label") if name in table.schema_arrow.names]
    text: list[list[str | None]] = [[] for _ in names]
    for batch in text_batches(os.fspath(path), names):
        for values, more in zip(text, batch, strict=True):
            values += more
    paths, labels = [*text, None][:2]
    metadata = json.loads(table.schema_arrow.metadata[b"featuretl"])
    return X, paths, labels, metadata, _boxes(columns)


_FORMATS: dict[str, tuple[Callable[[Path, _Rows], None], Callable[[Path], _Contents]]] = {
    ".npy": (_write_npy, _read_npy),
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
}
