"""Files of predictions: ``.csv``, ``.parquet`` or ``.jsonl``, a row per image, in order.

Columns, the same in all three: ``path``; ``prediction``, empty for an image that cannot be read and
where the model abstains; for classes with probabilities ``label_1``, ``probability_1``, .., the most
probable first; ``error``, why an image could not be read.

While they are made, predictions lie in the folder ``OUT.partial``, a Parquet file per batch. After a
kill the same call goes on behind the last whole batch; at the end all are joined to one file.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from featuretl._validation import as_utf8, check_int, parameter_error, printable
from featuretl.exceptions import InputError, ParameterError, StoreError
from featuretl.images.inputs import as_images, name_of
from featuretl.models.persistence import model_digest
from featuretl.outputs import check_output, replace_file
from featuretl.prediction import (
    BATCH,
    Predictions,
    Progress,
    check_one_class,
    check_takes_images,
    in_batches,
    inner_of,
)

ENDINGS = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Written:
    """What `predict_to_file` did.

    Attributes
    ----------
    images : int
        Rows of the file.
    resumed : int
        Rows that an earlier, interrupted call had made.
    failed : int
        Images that cannot be read.
    abstained : int
        Images whose most probable class is less probable than the threshold.
    """

    images: int
    resumed: int
    failed: int
    abstained: int


def predict_to_file(
    model: Any,
    images: Any,
    path: str | os.PathLike[str],
    *,
    top: int = 1,
    threshold: float = 0.0,
    progress: Progress | None = None,
) -> Written:
    """Predict any number of images, in bounded memory, into a file.

    Parameters
    ----------
    model : estimator
        Takes images, gives one class or numbers for each, and is one that `save_model` keeps.
    images : sequence of n images
        Paths, as a rule: by their names a call that goes on knows them.
    path : path
        Ending in ``.csv``, ``.parquet`` or ``.jsonl``; replaced at once when all is predicted. What
        the columns are is told in `featuretl.prediction_files`.
    top : int >= 1, default=1
        How many classes to name with their probabilities, at most all.
    threshold : float in [0, 1], default=0.0
        The model abstains (its prediction is empty) where its most probable class is less probable.
    progress : callable, optional
        Called with the number of images that are done.

    Returns
    -------
    Written

    Raises
    ------
    ParameterError
        If a parameter has a value that is not accepted, or the model gives no probabilities.
    InputError
        If the model does not take images, or ``OUT.partial`` belongs to another call.
    StoreError
        If the file cannot be written.
    """
    target = check_output(path, ENDINGS)
    images = as_images(images, "predict_to_file")
    check_takes_images(model)
    check_one_class(model)
    columns = _Columns.of(model, top, threshold)
    parts = _Parts(target)
    try:
        resumed = parts.open(_identity(model, images, top, threshold), len(images))
        if progress:
            progress(resumed)
        for begin, predictions in in_batches(model, images, progress, resumed):
            batch = images[begin : begin + BATCH]
            names = [_path_of(image, begin + i) for i, image in enumerate(batch)]
            parts.add(columns.table(names, begin, predictions))
        return Written(len(images), resumed, *parts.join(target, columns.schema))
    except OSError as error:
        raise StoreError(
            f"The predictions {printable(target)!r} cannot be written ({error.strerror or error}); "
            "make room, and run it again to go on."
        ) from error


@dataclass(frozen=True)
class _Columns:
    """The columns of a model's predictions."""

    classes: list[str] | None
    top: int
    threshold: float
    is_number: bool

    @classmethod
    def of(cls, model: Any, top: int, threshold: float) -> _Columns:
        check_int("predict_to_file", "top", top, 1)
        if not isinstance(threshold, numbers.Real) or not 0 <= float(threshold) <= 1:
            raise parameter_error("predict_to_file", "threshold", "a number in [0, 1]", threshold)
        if hasattr(inner_of(model), "predict_proba"):
            classes = [as_utf8(str(name)) for name in model.classes_]
            return cls(classes, min(top, len(classes)), float(threshold), False)
        if top > 1 or threshold > 0:
            raise ParameterError(
                f"top and threshold need probabilities, which a {type(model).__name__} of this kind "
                "does not give; leave them out."
            )
        return cls(None, 0, 0.0, not hasattr(model, "classes_"))

    @property
    def schema(self) -> pa.Schema:
        """What the file holds."""
        fields = [("path", pa.string())]
        fields.append(("prediction", pa.float64() if self.is_number else pa.string()))
        for rank in range(1, self.top + 1):
            fields += [(f"label_{rank}", pa.string()), (f"probability_{rank}", pa.float64())]
        return pa.schema([*fields, ("error", pa.string())])

    def table(self, names: list[str], begin: int, predictions: Predictions) -> pa.Table:
        """Return the rows of the batch that begins at image `begin`."""
        n, rows = len(names), np.flatnonzero(predictions.ok)
        if predictions.predicted.ndim > 1:
            raise InputError("The model gives several numbers per image; use its predict.")
        columns: dict[str, list[Any]] = {name: [None] * n for name in self.schema.names}
        columns["path"] = [as_utf8(name) for name in names]
        for failure in predictions.failures:
            columns["error"][failure.index - begin] = as_utf8(failure.message)
        for row, value in zip(rows, predictions.predicted.tolist(), strict=True):
            columns["prediction"][row] = value if self.is_number else as_utf8(str(value))
        if self.classes is not None and predictions.proba is not None:
            order = np.argsort(-predictions.proba, axis=1, kind="stable")[:, : self.top]
            for row, chosen, proba in zip(rows, order, predictions.proba, strict=True):
                for rank, code in enumerate(chosen, 1):
                    columns[f"label_{rank}"][row] = self.classes[code]
                    columns[f"probability_{rank}"][row] = float(proba[code])
                if proba[chosen[0]] < self.threshold:
                    columns["prediction"][row] = None
        return pa.table(columns, schema=self.schema)


class _Parts:
    """The folder in which predictions are gathered, a Parquet file per batch."""

    def __init__(self, target: Path) -> None:
        self._folder = target.with_name(f"{target.name}.partial")
        self._identity = self._folder / "identity.json"
        self._n = 0

    def open(self, identity: dict[str, Any], n_images: int) -> int:
        """Create the folder, or go on in it; return how many images are done."""
        text = json.dumps(identity)
        self._folder.mkdir(exist_ok=True)
        if not self._identity.exists():
            self._publish(self._identity, text.encode())
        elif self._identity.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{printable(self._folder)!r} holds predictions of another model, other images or "
                "other parameters; delete it, or choose another output."
            )
        while self._part(self._n).exists():
            self._n += 1
        return min(self._n * BATCH, n_images)

    def add(self, table: pa.Table) -> None:
        """Keep the rows of the next batch, durably."""
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink)
        self._publish(self._part(self._n), sink.getvalue().to_pybytes())
        self._n += 1

    def join(self, target: Path, schema: pa.Schema) -> tuple[int, int]:
        """Write all rows to one file and delete the folder; return how many failed and abstained."""
        counts = np.zeros(2, int)

        def tables() -> Iterator[pa.Table]:
            for number in range(self._n):
                table = parquet.read_table(pa.BufferReader(self._part(number).read_bytes()))
                failed = table.num_rows - table["error"].null_count
                counts[:] += failed, table["prediction"].null_count - failed
                yield table

        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                _WRITERS[target.suffix](file, schema, tables())
                file.flush()
                os.fsync(file.fileno())

        replace_file(target, write)
        shutil.rmtree(self._folder)
        return int(counts[0]), int(counts[1])

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08d}.parquet"

    @staticmethod
    def _publish(path: Path, data: bytes) -> None:
        def write(partial: Path) -> None:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        replace_file(path, write)


def _path_of(image: Any, index: int) -> str:
    is_path = isinstance(image, (str, os.PathLike))
    return os.fsdecode(image) if is_path else name_of(image, index)


def _identity(model: Any, images: Any, top: int, threshold: float) -> dict[str, Any]:
    names = hashlib.sha256()
    for number, image in enumerate(images):
        names.update(f"{name_of(image, number)}\n".encode())
    return {
        "model": model_digest(model),
        "images": names.hexdigest(),
        "batch": BATCH,
        "top": top,
        "threshold": threshold,
    }


def _write_csv(file: Any, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with csv.CSVWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_parquet(file: Any, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    with parquet.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _write_jsonl(file: Any, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    for table in tables:
        file.writelines(f"{json.dumps(row)}\n".encode() for row in table.to_pylist())


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_jsonl}
