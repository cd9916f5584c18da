"""Files of sharded embeddings, described in docs/formats.md: a folder, or one Parquet file."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from featuretl._core.files import check_output, is_url
from featuretl._core.parameters import check_option
from featuretl._core.text import printable
from featuretl._learning.sharded import ShardedMatrix
from featuretl.exceptions import InputError, ParameterError
from featuretl.extraction.outputs import metadata_of, write_parquet, writing
from featuretl.images.tables import text_batches
from featuretl.scaleout.extraction import ShardedExtraction
from featuretl.store.format import npy_header
from featuretl.store.shared import SharedFolder

if TYPE_CHECKING:
    from sklearn.utils import Bunch

_DESCRIPTION = "featuretl.json"


def save_shards(
    path: str | os.PathLike[str], extraction: ShardedExtraction, *, dtype: str = "float32"
) -> int:
    """Write a sharded extraction to files, one shard at a time; return the number of embeddings.

    Parameters
    ----------
    path : path or URL
        A file ending in ``.parquet``, which is replaced atomically; or a new or empty folder, or
        its URL.
    extraction : ShardedExtraction
    dtype : {"float32", "float16"}, default="float32"
        Type of the embeddings in the files.

    Raises
    ------
    ParameterError, InputError, StoreError
        If `path` is neither of these, a value is too large for float16, a shard is damaged, or the
        output cannot be written.
    """
    check_option("save_shards", "dtype", dtype, ("float32", "float16"))
    target = check_shard_output(path)
    if isinstance(target, Path):
        return _save_parquet(target, extraction, dtype)
    return _save_folder(target, extraction, dtype)


def load_shards(folder: str | os.PathLike[str]) -> Bunch:
    """Load the folder that `save_shards` wrote, for heads; the embeddings stay on disk.

    Returns
    -------
    data : ~sklearn.utils.Bunch
        ``data``: `ShardedMatrix` (n, d); ``target``: object array (n,) of labels (str or None), or
        None if no image has a label; ``target_names``: list of the distinct labels, sorted.

    Raises
    ------
    InputError
        If the folder has no such files, or their numbers of rows differ.
    """
    from sklearn.utils import Bunch

    root = Path(folder)
    matrices = sorted((root / "img_emb").glob("*.npy"))
    if not matrices or not (root / _DESCRIPTION).exists():
        raise InputError(
            f"{printable(root)!r} is not a finished folder of save_shards; pass such a folder."
        )
    X = ShardedMatrix(matrices)
    labels = _labels(sorted((root / "metadata").glob("*.parquet")))
    if len(labels) != len(X):
        raise InputError(
            f"{printable(root)!r} holds {len(X)} embeddings and metadata of {len(labels)} images; "
            "write the folder again."
        )
    names = sorted({label for label in labels if label is not None})
    return Bunch(data=X, target=labels if names else None, target_names=names)


def _labels(tables: list[Path]) -> np.ndarray:
    """Return each row's label (str or None): object (n,), in which equal labels are one object."""
    seen: dict[str | None, str | None] = {}
    parts = [np.empty(0, object)]
    for path in tables:
        for (column,) in text_batches(str(path), ["label"]):
            parts.append(np.array([seen.setdefault(name, name) for name in column], object))
    return np.concatenate(parts)


def check_shard_output(path: str | os.PathLike[str]) -> Path | SharedFolder:
    """Return the file or folder to write; raise ParameterError if it cannot be written."""
    name = os.fspath(path)
    if name.endswith(".parquet") and not is_url(name):
        return check_output(name, (".parquet",))
    if name.endswith((".npy", ".npz", ".parquet")):
        raise ParameterError(
            f"Sharded embeddings are written to a local .parquet file or to a folder; got "
            f"{printable(name)!r}."
        )
    folder = SharedFolder(name)
    if folder.names(""):
        raise ParameterError(
            f"The output folder {printable(name)!r} is not empty; choose a new or an empty folder."
        )
    return folder


def _save_folder(folder: SharedFolder, extraction: ShardedExtraction, dtype: str) -> int:
    digits, n = len(str(max(0, len(extraction.keys) - 1))), 0
    for number, (table, rows) in enumerate(_parts(extraction, dtype)):
        npy = npy_header(rows.shape, rows.dtype) + rows.data.cast("B")
        folder.put(f"img_emb/img_emb_{number:0{digits}d}.npy", npy)
        buffer = io.BytesIO()
        parquet.write_table(table.rename_columns(["image_path", "label", "sha256"]), buffer)
        folder.put(f"metadata/metadata_{number:0{digits}d}.parquet", buffer.getvalue())
        n += len(rows)
    described = metadata_of((n, extraction.n_features), extraction.recipe)
    folder.put(_DESCRIPTION, json.dumps(described).encode())
    return n


def _save_parquet(path: Path, extraction: ShardedExtraction, dtype: str) -> int:
    n = sum(entry.rows for entry in extraction.entries())
    metadata = metadata_of((n, extraction.n_features), extraction.recipe)
    columns = pa.schema([(name, pa.string()) for name in ("path", "label", "sha256")])
    with writing(path, "shared store"):
        write_parquet(path, columns, _parts(extraction, dtype), dtype, metadata)
    return n


def _parts(extraction: ShardedExtraction, dtype: str) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield a table (path, label, sha256) and embeddings (n, d) for each shard that has rows."""
    for rows, table, entry in extraction.shards():
        if not len(rows):
            continue
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, np.dtype(dtype).newbyteorder("<"))
        if dtype == "float16" and not np.isfinite(rows).all():
            raise InputError(
                f"The embeddings of {entry.source} are too large for float16; write float32."
            )
        digests = [key.hex() for key in table.column("sha256").to_pylist()]
        table = table.select(["path", "label"]).append_column("sha256", pa.array(digests))
        yield table, rows
