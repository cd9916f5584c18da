"""Files of predictions, whose columns docs/formats.md lists, and how they resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from featuretl._core.files import check_output, each, is_url, replace_file
from featuretl._core.parameters import check_bool, check_int, check_number
from featuretl._core.text import as_utf8, printable
from featuretl.exceptions import ImageError, InputError, ParameterError, StoreError
from featuretl.images.crops import BOX, box_columns
from featuretl.images.inputs import as_images, file_of, name_of, read
from featuretl.images.shards import states_of
from featuretl.models.fitted import Fitted
from featuretl.models.persistence import model_digest
from featuretl.prediction.parts import Parts
from featuretl.prediction.predict import BATCH, TAG_THRESHOLD, Predictions, Progress, predict_batch

if TYPE_CHECKING:
    from featuretl.novelty.detector import Drift

ENDINGS = (".csv", ".parquet", ".jsonl")
TAG_SEPARATOR = ";"


@dataclass(frozen=True)
class PredictionSummary:
    """Summary of a call of `predict_to_file`."""

    images: int  # rows of the file
    resumed: int  # rows that an earlier, interrupted call predicted
    failed: int  # unreadable images
    abstained: int  # images below the threshold, in at least one task
    drift: Drift | None = None  # with `novelty`: number of novel images, and a test for drift


def predict_to_file(
    model: Any,
    X: Any,
    path: str | os.PathLike[str],
    *,
    top: int = 1,
    threshold: float | None = None,
    novelty: bool = False,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Write predictions for any number of images to a file, in bounded memory.

    Parameters
    ----------
    model : estimator
        Fitted image model of a class that `save_model` supports, with at most one number per image.
    X : sequence of n images
        Usually paths. A resumed call recognises files by name, size and times, and images in memory
        by their content.
    path : path
        Ending in ``.csv``, ``.parquet`` or ``.jsonl``; replaced atomically at the end. The
        page "Formats" of the documentation lists the columns.
    top : int >= 1, default=1
        Number of most probable classes to write with their probabilities. A multi-label model
        writes all. In a multi-task model, `top` and `threshold` apply to tasks with probabilities.
    threshold : float in [0, 1], optional
        Smallest probability of a prediction, by default 0, and 0.5 for each label of a multi-label
        model. If no class reaches it, the model abstains: the prediction is empty.
    novelty : bool, default=False
        Write the novelty of each image; 0.95 or more is novel at the 5% level. For a fine-tuned
        model this needs a second pass, through the pretrained backbone.
    progress : callable, optional
        Called with the number of finished images.

    Returns
    -------
    PredictionSummary
        Numbers of `images`, `resumed` rows, and `failed` (unreadable) images; on how many the model
        `abstained`; `drift`, a test for more novel images than expected, or None.

    Raises
    ------
    ParameterError
        If a parameter is invalid, or `top` or `threshold` need probabilities that the model lacks.
    InputError
        If the model does not take images or has no novelty detector, or ``OUT.partial`` belongs to
        other arguments or is in use by another process.
    StoreError
        If the file cannot be written.
    """
    target = check_output(path, ENDINGS)
    images = as_images(X, "predict_to_file")
    fitted = Fitted.of_images(model)
    check_bool("predict_to_file", "novelty", novelty)
    check_int("predict_to_file", "top", top, 1)
    check_number("predict_to_file", "threshold", threshold, "[0, 1]", None)
    detector = fitted.detector[-1] if novelty else None
    columns = _Table.of(fitted, top, threshold, novelty, bool(box_columns(images)))
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
            failed, abstained, novel = _merge(parts, target, columns, detector)
        drift = detector.drift_of(len(images) - failed, novel) if detector else None
        return PredictionSummary(len(images), resumed, failed, abstained, drift)
    except OSError as error:
        raise StoreError(
            f"The predictions {printable(target)!r} cannot be written ({error.strerror or error}); "
            "free disk space, then run it again to resume."
        ) from error


@dataclass(frozen=True)
class _Columns:
    """The columns of one task."""

    classes: list[str] | None
    top: int
    threshold: float
    multilabel: bool
    ending: str  # "_TASK" for a multi-task model

    @classmethod
    def of(cls, fitted: Fitted, top: int, threshold: float | None, ending: str = "") -> _Columns:
        is_number, multilabel = fitted.kind == "regression", fitted.kind == "multilabel"
        classes = None if is_number else [as_utf8(str(name)) for name in fitted.classes]
        if classes is None or not fitted.gives_probabilities:
            if top > 1 or threshold:
                raise ParameterError(
                    "top and threshold need probabilities, which this "
                    f"{type(fitted.model).__name__} does not predict; omit them."
                )
            return cls(classes, 0, 0.0, multilabel, ending)
        if multilabel and top > 1:
            raise ParameterError(
                "top must be 1 for a multi-label model, which writes the probabilities of all "
                f"labels; got {top}."
            )
        least = (TAG_THRESHOLD if multilabel else 0.0) if threshold is None else threshold
        return cls(classes, min(top, len(classes)), float(least), multilabel, ending)

    @property
    def fields(self) -> list[tuple[str, pa.DataType]]:
        number, text = pa.float64(), pa.string()
        fields = [("prediction", number if self.classes is None else text)]
        if self.multilabel and self.top:
            fields += [(f"probability_{name}", number) for name in self.classes or ()]
        else:
            for rank in range(1, self.top + 1):
                fields += [(f"label_{rank}", text), (f"probability_{rank}", number)]
        return [(name + self.ending, kind) for name, kind in fields]

    def values(self, found: Predictions) -> list[Any]:
        """Return the values of each field for the readable images."""
        names, proba = self.classes, found.proba
        if self.multilabel and names is not None:
            chosen = found.predicted > 0 if proba is None else proba >= self.threshold
            tags = [TAG_SEPARATOR.join(names[i] for i in np.flatnonzero(row)) for row in chosen]
            return [[text or None for text in tags], *(() if proba is None else proba.T)]
        if found.predicted.ndim > 1:
            raise InputError("The model predicts several numbers per image; use model.predict.")
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
    """The columns of a file by task; the key is None for a single-task model."""

    tasks: dict[str | None, _Columns]
    novelty: bool
    boxes: bool

    @classmethod
    def of(
        cls, fitted: Fitted, top: int, threshold: float | None, novelty: bool, boxes: bool
    ) -> _Table:
        if fitted.tasks is None:
            return cls({None: _Columns.of(fitted, top, threshold)}, novelty, boxes)
        # If no task predicts probabilities, the first task raises the error.
        some = any(task.gives_probabilities for task in fitted.tasks.values())
        columns: dict[str | None, _Columns] = {}
        for name, task in fitted.tasks.items():
            options = (1, None) if some and not task.gives_probabilities else (top, threshold)
            columns[name] = _Columns.of(task, *options, ending=f"_{as_utf8(name)}")
        return cls(columns, novelty, boxes)

    @property
    def threshold(self) -> Any:
        """The threshold, or a list of thresholds of the tasks."""
        used = [columns.threshold for columns in self.tasks.values()]
        return used[0] if None in self.tasks else used

    @property
    def schema(self) -> pa.Schema:
        fields = [field for columns in self.tasks.values() for field in columns.fields]
        if self.novelty:
            fields.append(("novelty", pa.float64()))
        boxes = [(name, pa.float64()) for name in BOX if self.boxes]
        return pa.schema([("path", pa.string()), *boxes, *fields, ("error", pa.string())])

    def table(self, batch: Sequence[Any], begin: int, found: Predictions) -> pa.Table:
        """Return the rows of the batch that begins at image `begin`."""
        values: list[Any] = []
        for task, columns in self.tasks.items():
            values += columns.values(found if task is None else found.of_task(task))
        if self.novelty:
            values.append(found.novelty)
        # The position of each image among the readable ones; null for unreadable images.
        place = pa.array(np.cumsum(found.ok) - 1, mask=~found.ok)
        fields = list(self.schema)[-1 - len(values) : -1]
        filled = [
            pa.array(column, field.type).take(place)
            for column, field in zip(values, fields, strict=True)
        ]
        errors: list[str | None] = [None] * len(batch)
        for failure in found.failures:
            errors[failure.index - begin] = as_utf8(failure.message)
        paths = [
            as_utf8(file_of(image) or name_of(image, begin + i)) for i, image in enumerate(batch)
        ]
        boxes = (box_columns(batch) or {name: [None] * len(batch) for name in BOX}).values()
        shown = boxes if self.boxes else ()
        return pa.table([paths, *shown, *filled, errors], schema=self.schema)


def _merge(parts: Parts, target: Path, columns: _Table, detector: Any) -> tuple[int, int, int]:
    """Write all rows to one file; return the numbers of failed, abstained and novel rows."""
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


def _state_of(batch: Any) -> str:
    """Return a digest of the states of a batch, which changes with its images; reads no files."""
    states = hashlib.sha256()
    urls = [path for image in batch if (path := file_of(image)) is not None and is_url(path)]
    remote = iter(each(lambda url: states_of([url])[url], urls))
    for image in batch:
        state: Any = None
        with contextlib.suppress(OSError, ValueError, ImageError):
            path = file_of(image)
            if path is not None and is_url(path):
                state = next(remote)
            elif path is not None:
                status = Path(path).stat()
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
