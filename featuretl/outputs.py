"""Self-describing files of embeddings: ``.npy`` with a JSON sidecar, ``.npz`` and ``.parquet``.

All three hold the embeddings, float32 (n, d), and for every row the image's path and, where known,
its label and target (the label's index in ``class_names``, -1 for none), and the same metadata:
``backbone``, ``weights_sha256``, ``recipe`` (see `featuretl.store.keys`), ``class_names``,
``versions``, ``created``.

- ``OUT.npy``: the matrix; everything else is in ``OUT.npy.json``.
- ``OUT.npz``: arrays ``embeddings``, ``paths``, ``labels``, ``target``, ``class_names`` and
  ``metadata`` (JSON text); no pickle. ``labels`` has "" where there is none.
- ``OUT.parquet``: columns ``path``, ``label``, ``target``, ``embedding`` (fixed-size list), the
  metadata under the key ``featuretl`` of the schema.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import featuretl
from featuretl._validation import printable
from featuretl.exceptions import ParameterError, StoreError
from featuretl.extraction import Extraction
from featuretl.images.sources import ImageList
from featuretl.store.format import npy_header, write_matrix

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
    rows = _Rows(extraction, images, extraction.ok if skip_failures else None)
    try:
        _WRITERS[target.suffix](target, rows)
    except OSError as error:
        raise StoreError(
            f"{printable(target)!r} cannot be written ({error.strerror or error}); the embeddings "
            "are in the cache: run the command again with another place."
        ) from error


def check_output(path: str | os.PathLike[str]) -> Path:
    """Return `path` if embeddings can be written there; raise ParameterError otherwise."""
    target = Path(path)
    if target.suffix not in _WRITERS:
        raise ParameterError(
            f"The output must end in {', '.join(_WRITERS)}; got {printable(target)!r}."
        )
    if not target.parent.is_dir():
        raise ParameterError(
            f"The folder of the output {printable(target)!r} does not exist; create it first."
        )
    return target


class _Rows:
    """The rows to write and what belongs to them."""

    def __init__(self, extraction: Extraction, images: ImageList, keep: np.ndarray | None) -> None:
        kept = range(len(images)) if keep is None else np.flatnonzero(keep).tolist()
        labels, target = images.labels, images.target
        self.paths = [images.paths[i] for i in kept]
        self.labels = None if labels is None else [labels[i] for i in kept]
        self.target = None if target is None else target[list(kept)]
        self.class_names = images.class_names
        self.shape = (len(self.paths), extraction.shape[1])
        self.chunks = lambda: extraction.chunks(_ROWS, keep)
        self.metadata: dict[str, Any] = {
            "featuretl": featuretl.__version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "shape": self.shape,
            "backbone": extraction.recipe["backbone"]["name"],
            "weights_sha256": extraction.recipe["backbone"]["tensors"],
            "recipe": extraction.recipe,
            "versions": extraction.versions,
            "class_names": self.class_names,
        }


def _write_npy(path: Path, rows: _Rows) -> None:
    described = {
        **rows.metadata,
        "paths": rows.paths,
        "labels": rows.labels,
        "target": None if rows.target is None else rows.target.tolist(),
    }

    def write(partial: Path) -> None:
        partial.write_text(json.dumps(described), encoding="utf-8")
        # Inside: a sidecar that cannot be written leaves the matrix as it was, too.
        write_matrix(path, rows.shape, rows.chunks())

    _replace(path.with_name(f"{path.name}.json"), write)


def _write_npz(path: Path, rows: _Rows) -> None:
    arrays = {"paths": np.array(rows.paths, str), "metadata": np.array(json.dumps(rows.metadata))}
    if rows.labels is not None and rows.target is not None:
        arrays["labels"] = np.array([label or "" for label in rows.labels], str)
        arrays["target"] = rows.target
        arrays["class_names"] = np.array(rows.class_names, str)

    def write(partial: Path) -> None:
        with zipfile.ZipFile(partial, "w", allowZip64=True) as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                member.write(npy_header(rows.shape, np.dtype("<f4")))
                for chunk in rows.chunks():
                    member.write(chunk.data)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    _replace(path, write)


def _write_parquet(path: Path, rows: _Rows) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    d = rows.shape[1]
    fields = [pa.field("path", pa.string())]
    if rows.labels is not None:
        fields += [pa.field("label", pa.string()), pa.field("target", pa.int64())]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), d)))
    schema = pa.schema(fields, metadata={"featuretl": json.dumps(rows.metadata)})

    def write(partial: Path) -> None:
        # A file, for pyarrow takes no path that is not UTF-8.
        with partial.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
            for number, chunk in enumerate(rows.chunks()):
                part = slice(number * _ROWS, number * _ROWS + len(chunk))
                # Parquet's text is UTF-8; the bytes of a path need not be.
                columns = [pa.array([_utf8(name) for name in rows.paths[part]])]
                if rows.labels is not None and rows.target is not None:
                    labels = [label and _utf8(label) for label in rows.labels[part]]
                    columns += [pa.array(labels, pa.string()), pa.array(rows.target[part])]
                values = pa.array(chunk.ravel(), pa.float32())
                columns.append(pa.FixedSizeListArray.from_arrays(values, d))
                writer.write_batch(pa.record_batch(columns, schema=schema))

    _replace(path, write)


_WRITERS: dict[str, Callable[[Path, _Rows], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
