"""Files of predictions: ``.csv``, ``.parquet`` or ``.jsonl``, a row per image, in order.

Columns, the same in all three: ``path``; ``prediction``, empty for an image that cannot be read and
where the model abstains; for classes with probabilities ``label_1``, ``probability_1``, .., the most
probable first; ``novelty``, where asked for, in [0, 1): the fraction of images like the training ones
that are less unusual; ``error``, why an image could not be read. For a multi-label model the prediction
is the labels, separated by ``;``, and there is a column ``probability_LABEL`` for each. For a
multi-task model there are these columns for each task, with ``_TASK`` after their names:
``prediction_species``, ``label_1_species``, ``probability_1_species``, ``prediction_age``, ..

Until the file is complete, predictions are in the folder ``OUT.partial``; see
`featuretl.prediction.parts`. After a kill the same call predicts the batches that are missing, and
those whose images have changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import numbers
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from featuretl._core.files import replace_file
from featuretl._core.parameters import check_bool, check_int, parameter_error
from featuretl._core.text import as_utf8, printable
from featuretl.exceptions import ImageError, InputError, ParameterError, StoreError
from featuretl.extraction.outputs import check_output
from featuretl.images.inputs import as_images, name_of, read
from featuretl.models.fitted import Fitted
from featuretl.models.persistence import model_digest
from featuretl.novelty.drift import Drift
from featuretl.prediction.parts import Parts
from featuretl.prediction.predict import BATCH, TAG_THRESHOLD, Predictions, Progress, predict_batch

ENDINGS = (".csv", ".parquet", ".jsonl")
TAG_SEPARATOR = ";"


@dataclass(frozen=True)
class PredictionSummary:
    """Summary of a call of `predict_to_file`.

    Attributes
    ----------
    images : int
        Rows of the file.
    resumed : int
        Rows that an earlier, interrupted call had predicted.
    failed : int
        Images that could not be read.
    abstained : int
        Images without a prediction that reaches the threshold; with several tasks, in at least one.
    drift : Drift or None
        With `novelty`: how many images are unlike the training ones, and whether these are more than
        chance explains.
    """

    images: int
    resumed: int
    failed: int
    abstained: int
    drift: Drift | None = None


def predict_to_file(
    model: Any,
    images: Any,
    path: str | os.PathLike[str],
    *,
    top: int = 1,
    threshold: float | None = None,
    novelty: bool = False,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Predict any number of images, in bounded memory, into a file.

    Parameters
    ----------
    model : estimator
        Takes images, predicts classes or one number, and is of a class that `save_model` saves.
    images : sequence of n images
        Usually paths: a call that resumes recognises files by name, size and times, and images in
        memory by their content.
    path : path
        Ending in ``.csv``, ``.parquet`` or ``.jsonl``; replaced atomically when all images are
        predicted. `featuretl.prediction.files` describes the columns.
    top : int >= 1, default=1
        Number of classes to name with their probabilities, at most all. A multi-label model names
        all. With several tasks it holds for those with probabilities, as does `threshold`.
    threshold : float in [0, 1], optional
        Least probability of a prediction. By default 0, and 0.5 for each label of a multi-label
        model. Where no class reaches it the model abstains: its prediction is empty.
    novelty : bool, default=False
        Add how unlike the training images each image is; 0.95 or more is novel at a level of 5%. For
        a fine-tuned model this takes a second pass, of the backbone before fine-tuning.
    progress : callable, optional
        Called with the number of images that are done.

    Returns
    -------
    PredictionSummary

    Raises
    ------
    ParameterError
        If a parameter has a value that is not accepted, or the model gives no probabilities.
    InputError
        If the model does not take images or has no novelty detector, ``OUT.partial`` belongs to
        another call, or another process is filling it.
    StoreError
        If the file cannot be written.
    """
    target = check_output(path, ENDINGS)
    images = as_images(images, "predict_to_file")
    fitted = Fitted.of_images(model)
    check_bool("predict_to_file", "novelty", novelty)
    check_int("predict_to_file", "top", top, 1)
    if threshold is not None and not (
        isinstance(threshold, numbers.Real) and 0 <= float(threshold) <= 1
    ):
        raise parameter_error("predict_to_file", "threshold", "a number in [0, 1]", threshold)
    detector = fitted.detector[-1] if novelty else None
    columns = _Table.of(fitted, top, threshold, novelty)
    identity = _identity(model, images, top, columns.threshold, novelty)
    resumed = 0
    try:
        with Parts(target, json.dumps(identity)) as parts:
            for begin in range(0, len(images), BATCH):
                batch = images[begin : begin + BATCH]
                state = _state_of(batch)
                if parts.has(begin // BATCH, state):
                    resumed += len(batch)
                else:
                    found = predict_batch(fitted, images, begin, novelty=novelty)
                    parts.add(columns.table(batch, begin, found))
                if progress:
                    progress(begin + len(batch))
            failed, abstained, novel = _join(parts, target, columns, detector)
        drift = detector.drift_of(len(images) - failed, novel) if detector else None
        return PredictionSummary(len(images), resumed, failed, abstained, drift)
    except OSError as error:
        raise StoreError(
            f"The predictions {printable(target)!r} cannot be written ({error.strerror or error}); "
            "free disk space, and run it again to resume."
        ) from error


@dataclass(frozen=True)
class _Columns:
    """The columns of the predictions of one task."""

    classes: list[str] | None
    top: int
    threshold: float
    multilabel: bool
    # "_" and the name of the task, for a multi-task model.
    ending: str

    @classmethod
    def of(cls, fitted: Fitted, top: int, threshold: float | None, ending: str = "") -> _Columns:
        is_number, multilabel = fitted.kind == "regression", fitted.kind == "multilabel"
        classes = None if is_number else [as_utf8(str(name)) for name in fitted.classes]
        if classes is None or not fitted.gives_probabilities:
            if top > 1 or threshold:
                raise ParameterError(
                    f"top and threshold need probabilities, which a {type(fitted.model).__name__} of "
                    "this kind does not give; leave them out."
                )
            return cls(classes, 0, 0.0, multilabel, ending)
        if multilabel and top > 1:
            raise ParameterError(
                "top is for models that give one class; this one gives the probabilities of all its "
                "labels anyway."
            )
        least = (TAG_THRESHOLD if multilabel else 0.0) if threshold is None else threshold
        return cls(classes, min(top, len(classes)), float(least), multilabel, ending)

    @property
    def fields(self) -> list[tuple[str, pa.DataType]]:
        """Names and types."""
        number, text = pa.float64(), pa.string()
        fields = [("prediction", number if self.classes is None else text)]
        if self.multilabel and self.top:
            fields += [(f"probability_{name}", number) for name in self.classes or ()]
        else:
            for rank in range(1, self.top + 1):
                fields += [(f"label_{rank}", text), (f"probability_{rank}", number)]
        return [(name + self.ending, kind) for name, kind in fields]

    def values(self, found: Predictions) -> list[Any]:
        """Return the values of each field, of the images that could be read."""
        names, proba = self.classes, found.proba
        if self.multilabel and names is not None:
            chosen = found.predicted > 0 if proba is None else proba >= self.threshold
            tags = [TAG_SEPARATOR.join(names[i] for i in np.flatnonzero(row)) for row in chosen]
            return [[text or None for text in tags], *(() if proba is None else proba.T)]
        if found.predicted.ndim > 1:
            raise InputError("The model gives several numbers per image; use its predict.")
        if names is None:
            return [found.predicted]
        predicted: list[Any] = [as_utf8(str(name)) for name in found.predicted.tolist()]
        if not self.top:
            return [predicted]
        order = np.argsort(-proba, axis=1, kind="stable")[:, : self.top]
        highest = np.take_along_axis(proba, order, axis=1)
        for row in np.flatnonzero(highest[:, 0] < self.threshold):
            predicted[row] = None
        ranks = zip(order.T, highest.T, strict=True)
        return [predicted, *(column for i, p in ranks for column in ([names[k] for k in i], p))]


@dataclass(frozen=True)
class _Table:
    """The columns of a file: those of a model, or of each of its tasks, by name."""

    tasks: dict[str | None, _Columns]
    novelty: bool

    @classmethod
    def of(cls, fitted: Fitted, top: int, threshold: float | None, novelty: bool) -> _Table:
        if fitted.tasks is None:
            return cls({None: _Columns.of(fitted, top, threshold)}, novelty)
        # Where no task gives probabilities the first raises the error.
        some = any(task.gives_probabilities for task in fitted.tasks.values())
        columns: dict[str | None, _Columns] = {}
        for name, task in fitted.tasks.items():
            asked = (1, None) if some and not task.gives_probabilities else (top, threshold)
            columns[name] = _Columns.of(task, *asked, ending=f"_{as_utf8(name)}")
        return cls(columns, novelty)

    @property
    def threshold(self) -> Any:
        """The threshold, or that of each task."""
        used = [columns.threshold for columns in self.tasks.values()]
        return used[0] if None in self.tasks else used

    @property
    def schema(self) -> pa.Schema:
        """The schema of the file."""
        fields = [field for columns in self.tasks.values() for field in columns.fields]
        if self.novelty:
            fields.append(("novelty", pa.float64()))
        return pa.schema([("path", pa.string()), *fields, ("error", pa.string())])

    def table(self, batch: Sequence[Any], begin: int, found: Predictions) -> pa.Table:
        """Return the rows of the batch that begins at image `begin`."""
        values: list[Any] = []
        for task, columns in self.tasks.items():
            values += columns.values(found if task is None else found.of_task(task))
        if self.novelty:
            values.append(found.novelty)
        # The place of each image among those that could be read; null for the others.
        place = pa.array(np.cumsum(found.ok) - 1, mask=~found.ok)
        _, *fields, _ = self.schema
        filled = [
            pa.array(column, field.type).take(place)
            for column, field in zip(values, fields, strict=True)
        ]
        errors: list[str | None] = [None] * len(batch)
        for failure in found.failures:
            errors[failure.index - begin] = as_utf8(failure.message)
        paths = [
            as_utf8(os.fsdecode(image) if _is_path(image) else name_of(image, begin + i))
            for i, image in enumerate(batch)
        ]
        return pa.table([paths, *filled, errors], schema=self.schema)


def _join(parts: Parts, target: Path, columns: _Table, detector: Any) -> tuple[int, int, int]:
    """Write all rows to one file; return how many failed, lack a prediction, and are novel."""
    counts = np.zeros(3, int)
    predictions = [f"prediction{own.ending}" for own in columns.tasks.values()]

    def tables() -> Iterator[pa.Table]:
        for table in parts.tables():
            failed = table.num_rows - table["error"].null_count
            empty = [table[name].is_null().to_numpy() for name in predictions]
            novel = 0
            if detector is not None:
                novel = detector.is_novel(table["novelty"].drop_null().to_numpy()).sum()
            counts[:] += failed, np.any(empty, axis=0).sum() - failed, novel
            yield table

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            _write(file, target.suffix, columns.schema, tables())

    replace_file(target, write)
    parts.remove()
    return int(counts[0]), int(counts[1]), int(counts[2])


def _identity(model: Any, images: Any, top: int, threshold: Any, novelty: bool) -> dict[str, Any]:
    names = hashlib.sha256()
    for number, image in enumerate(images):
        names.update(f"{name_of(image, number)}\n".encode())
    return {
        "model": model_digest(model),
        "images": names.hexdigest(),
        "batch": BATCH,
        "top": top,
        "threshold": threshold,
        "novelty": novelty,
    }


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))


def _state_of(batch: Any) -> str:
    """Return a digest that changes when images of a batch do, without reading files."""
    states = hashlib.sha256()
    for image in batch:
        state: Any = None
        with contextlib.suppress(OSError, ValueError, ImageError):
            if _is_path(image):
                status = Path(image).stat()
                state = status.st_size, status.st_mtime_ns, status.st_ctime_ns
            else:
                state = read(image).key
        states.update(f"{state}\n".encode())
    return states.hexdigest()[:32]


def _write(file: Any, ending: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    if ending == ".jsonl":
        for table in tables:
            file.writelines(f"{json.dumps(row)}\n".encode() for row in table.to_pylist())
        return
    with (csv.CSVWriter if ending == ".csv" else parquet.ParquetWriter)(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
