"""Predictions and scores of a model for any number of images, a batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from featuretl._core.statistics import RESAMPLES
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.columns import in_column, read_column, table_of
from featuretl._learning.groups import read_groups
from featuretl._learning.labels import (
    all_labels,
    all_numbers,
    codes_of,
    codes_of_sets,
    is_label_sets,
    one_label_each,
)
from featuretl._learning.metrics import metrics_report
from featuretl.exceptions import ImageError, InputError
from featuretl.extraction.engine import Failure
from featuretl.heads.multi_task import MultiTaskHead
from featuretl.images.inputs import as_images, name_of

# Called with the number of images that are done.
Progress = Callable[[int], Any]

BATCH = 1024
# From here on a label is one of the image's, where there may be several.
TAG_THRESHOLD = 0.5


@dataclass(eq=False, frozen=True)
class Predictions:
    """What a model says of a batch of n images.

    Attributes
    ----------
    ok : ndarray of shape (n,), bool
        Which images could be read.
    predicted : ndarray of shape (k, ..)
        Classes, or numbers, of those; for several labels per image 0 and 1, (k, n_labels).
    proba : ndarray of shape (k, n_classes), float64, or None
        Their probabilities, where the model gives any; one class that is predicted is the most
        probable one.
    failures : list of Failure
        The others, with their positions in the batch.
    novelty : ndarray of shape (k,), float64, or None
        Where it was asked for; see `NoveltyDetector.novelty`.

    Of a model of several tasks `predicted` and `proba` are dicts of these, by task.
    """

    ok: Array
    predicted: Any
    proba: Any
    failures: list[Failure]
    novelty: Array | None = None

    def of_task(self, name: str) -> Predictions:
        """Return those of one of several tasks."""
        return replace(self, predicted=self.predicted[name], proba=self.proba[name])


def predict_images(model: Any, images: Sequence[Any], *, novelty: bool = False) -> Predictions:
    """Return what a fitted model says of images, the bad ones named.

    Parameters
    ----------
    model : estimator
        Takes images: a pipeline that begins with `ImageEmbedder`, or an estimator of featuretl.
    images : sequence of n images
    novelty : bool, default=False
        Whether to say how unlike the training images they are, too.

    Raises
    ------
    InputError
        If the model cannot say that.
    """
    detector = detector_of(model) if novelty else None
    model = inner_of(model)
    steps = getattr(model, "steps", [])
    if not steps or not hasattr(steps[0][1], "extract"):
        found = _by_halves(model, images)
        return replace(found, novelty=_novelty(detector, images, found.ok))
    extraction = steps[0][1].extract(images)
    ok = extraction.ok
    X = extraction.to_numpy()[ok]
    found = Predictions(ok, *_of_tasks(model, X), extraction.failures)
    if detector is not None and detector[0].recipe() == steps[0][1].recipe():
        return replace(found, novelty=detector[-1].novelty(X) if len(X) else np.zeros(0))
    return replace(found, novelty=_novelty(detector, images, ok))


def _of_tasks(model: Any, X: Array) -> tuple[Any, Any]:
    """Return predictions and probabilities from embeddings; of several tasks dicts by task."""
    tasks = task_models(model)
    if tasks is None:
        return _outputs(model[1:], X)
    outputs = {name: _outputs(one[1:], X) for name, one in tasks.items()}
    predicted = {name: output[0] for name, output in outputs.items()}
    return predicted, {name: output[1] for name, output in outputs.items()}


def evaluate_model(
    model: Any,
    images: Any,
    y: Any,
    *,
    groups: Any = None,
    n_bootstrap: int = RESAMPLES,
    confidence: float = 0.95,
    random_state: Any = 0,
    progress: Progress | None = None,
) -> Bunch:
    """Return the scores of a model on images whose truth is known, with confidence intervals.

    Parameters
    ----------
    model : estimator
        See `predict_images`.
    images : sequence of n images
    y : array-like of shape (n,), (n, n_labels) or (n, n_outputs)
        Classes, of the type of the model's, as text or as numbers of the same value; n lists of labels, or an indicator of 0 and
        1, for a model of several labels per image; or numbers. For a model of several tasks a
        DataFrame, or a dict, with a column for each that is to be scored; None, NaN and empty text
        are missing labels.
    groups : array-like of shape (n,), default=None
        Images of one group count as one draw in the intervals.
    n_bootstrap, confidence, random_state
        As in `metrics_report`.
    progress : callable, optional
        Called with the number of images that are done.

    Returns
    -------
    Bunch
        As `metrics_report`, over the images that could be read; and `failures`, the others. Of
        several tasks `task` is "several", `n` the images, and `tasks` has such a Bunch for each, over
        the images that have its label.

    Raises
    ------
    InputError
        If lengths differ, `y` holds a class or a task that the model does not know, or no image can
        be read.
    """
    check_takes_images(model, other_media=True)
    owner = "evaluate_model"
    images = as_images(images, owner)
    groups = read_groups(owner, groups, len(images))
    options = {"n_bootstrap": n_bootstrap, "confidence": confidence, "random_state": random_state}
    tasks = task_models(model)
    truth: Any
    if tasks is None:
        truth = known_labels(model, y, owner)
    else:
        truth = known_tasks(tasks, y, len(images), owner)
    if tasks is None and len(truth) != len(images):
        raise InputError(f"y must have one entry per image; got {len(truth)} for {len(images)}.")
    parts = list(in_batches(model, images, progress))
    failures = [failure for part in parts for failure in part.failures]
    if not any(part.ok.any() for part in parts):
        raise InputError(f"None of {len(images)} images could be read; there is nothing to score.")
    if tasks is None:
        every = np.arange(len(images))
        return Bunch(**_scores(model, every, truth, groups, parts, options), failures=failures)
    reports = {}
    for name, (rows, y_of_task) in truth.items():
        of_task = [part.of_task(name) for part in parts]
        with in_column(name):
            reports[name] = _scores(tasks[name], rows, y_of_task, groups, of_task, options)
    n = sum(int(part.ok.sum()) for part in parts)
    return Bunch(task="several", n=n, tasks=reports, failures=failures)


def task_models(model: Any) -> dict[str, Any] | None:
    """Return for each task of a model of several a model of this task alone; None for one task.

    Parameters
    ----------
    model : estimator
        Fitted: a pipeline that ends with `MultiTaskHead`, or `TransferMultiTask`.

    Returns
    -------
    dict of str to Pipeline, or None
        They share the steps before the heads, and do all that other models do: `explain`,
        `export_model`, `save_model`.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn.pipeline import make_pipeline
    >>> from featuretl import ImageEmbedder, MultiTaskHead
    >>> images = load_sample_images().images
    >>> model = make_pipeline(ImageEmbedder(cache=None), MultiTaskHead())
    >>> y = {"what": ["temple", "flower"], "light": [0.3, 0.4]}
    >>> task_models(model.fit(images, y))["what"].predict(images).tolist()
    ['temple', 'flower']
    """
    model = inner_of(model)
    head = _ends_of(model)[1]
    if not isinstance(head, MultiTaskHead):
        return None
    before = getattr(model, "steps", [])[:-1]
    return {
        name: Pipeline([*before, ("head", one)])
        for name, one in zip(head.tasks_, head.estimators_, strict=True)
    }


def known_tasks(
    tasks: dict[str, Any], y: Any, n: int, owner: str
) -> dict[str, tuple[Array, Array]]:
    """Return for each task in `y` which of n rows have a label, and these as the model knows them."""
    table = table_of(owner, y, n)
    unknown = [name for name in table if name not in tasks]
    if unknown:
        raise InputError(
            f"y has a column {printable(unknown[0])!r}, which is no task of the model; it has "
            f"{printable(', '.join(tasks))}."
        )
    known = {}
    for name, values in table.items():
        is_class = hasattr(tasks[name], "classes_")
        column = read_column(name, values, "classification" if is_class else "regression")
        with in_column(name):
            known[name] = column.rows, known_labels(tasks[name], column.y, owner)
    return known


def _scores(
    model: Any,
    rows: Array,
    y: Array,
    groups: Array | None,
    parts: list[Predictions],
    options: dict[str, Any],
) -> Bunch:
    """Return the scores of predictions of images, of which `rows` have a truth, `y`."""
    ok = np.concatenate([part.ok for part in parts])
    readable = ok[rows]
    if not readable.any():
        raise InputError("no image that has a label could be read; there is nothing to score.")
    place = (np.cumsum(ok) - 1)[rows[readable]]
    predicted = np.concatenate([part.predicted for part in parts if part.ok.any()])
    proba = None
    if parts[0].proba is not None:
        proba = np.concatenate([part.proba for part in parts if part.proba is not None])[place]
    return metrics_report(
        y[readable],
        predicted[place],
        proba,
        task=_task_of(model),
        labels=getattr(model, "classes_", None),
        groups=None if groups is None else groups[rows[readable]],
        **options,
    )


def inner_of(model: Any) -> Any:
    """Return what predicts in a model: of TransferClassifier and -Regressor the winner."""
    return getattr(model, "estimator_", model)


def detector_of(model: Any) -> Any:
    """Return the pipeline by which a model tells novel images; raises InputError."""
    detector = getattr(model, "novelty_", None)
    if detector is None:
        raise InputError(
            "The model does not know which images are unlike the training ones; train it again, with "
            "novelty, by featuretl train, TransferClassifier or TransferRegressor."
        )
    return detector


def use_machine(model: Any, **parameters: Any) -> None:
    """Set `cache`, `device` or `n_jobs` of a fitted model, and of all in it that have it."""
    for part in (model, inner_of(model), getattr(model, "novelty_", model)):
        names = {name: name.split("__")[-1] for name in part.get_params()}
        known = {name: parameters[last] for name, last in names.items() if last in parameters}
        part.set_params(**known)


def is_multilabel(model: Any) -> bool:
    """Return whether a fitted model gives any number of labels per image."""
    last = _ends_of(model)[1]
    if hasattr(last, "_multilabel"):
        return bool(last._multilabel)
    if not hasattr(last, "classes_") or not hasattr(last, "n_features_in_"):
        return False
    return bool(last.predict(np.zeros((1, last.n_features_in_), np.float32)).ndim == 2)


def predict_batch(
    model: Any, images: Sequence[Any], begin: int, *, novelty: bool = False
) -> Predictions:
    """Return the predictions of the batch that begins at an image; failures count from the first."""
    part = predict_images(model, images[begin : begin + BATCH], novelty=novelty)
    failures = [Failure(begin + f.index, f.name, f.message) for f in part.failures]
    return replace(part, failures=failures)


def check_takes_images(model: Any, other_media: bool = False) -> None:
    """Raise InputError unless a model takes images and its classes are one list.

    With `other_media`, a pipeline that begins with a `MediaEmbedder` will do.
    """
    first, last = _ends_of(model)
    if hasattr(first, "medium") and not other_media:
        raise InputError(
            f"The model must predict from images; got a pipeline of {type(first).__name__}: use "
            "evaluate_model and predict, or write_report on the matrix of its embeddings."
        )
    if not hasattr(first, "_tuned") and not (first is not last and hasattr(first, "extract")):
        raise InputError(
            f"The model must predict from images; got a {type(model).__name__} that does not: use "
            "make_pipeline(ImageEmbedder(), head), TransferClassifier or FineTuneClassifier."
        )
    if isinstance(getattr(last, "classes_", None), list):
        raise InputError(
            f"The {type(last).__name__} gives several classes per image, each of a list of its own; "
            "use LinearProbeClassifier for several labels per image."
        )


def known_labels(model: Any, y: Any, owner: str) -> Array:
    """Return `y` as classes of the model, which are found by `codes_of`; numbers as they are."""
    if not hasattr(model, "classes_"):
        return all_numbers(owner, y)
    labels, classes = all_labels(owner, y), model.classes_
    if not is_multilabel(model):
        if is_label_sets(labels):
            raise InputError(
                "The model gives one class per image, but y has several labels per image."
            )
        return classes[codes_of(owner, one_label_each(owner, labels), classes)]
    if is_label_sets(labels):
        return codes_of_sets(owner, labels, classes).astype(int)
    if labels.shape != (len(labels), len(classes)) or not np.isin(labels, (0, 1)).all():
        raise InputError(
            "The model gives several labels per image: y must be a list of labels for each image, "
            f"or 0 and 1 for each image and label, (n, {len(classes)}); got {type(y).__name__} of "
            f"shape {labels.shape}."
        )
    return labels.astype(int)


def _task_of(model: Any) -> str:
    if not hasattr(model, "classes_"):
        return "regression"
    return "multilabel" if is_multilabel(model) else "classification"


def _ends_of(model: Any) -> tuple[Any, Any]:
    """Return what takes the images in a model, and what gives its predictions."""
    inner = inner_of(model)
    is_pipeline = hasattr(inner, "steps")
    return (inner.steps[0][1], inner.steps[-1][1]) if is_pipeline else (inner, inner)


def in_batches(
    model: Any, images: Sequence[Any], progress: Progress | None
) -> Iterator[Predictions]:
    """Yield the predictions of batch after batch; failures count from the first image."""
    for begin in range(0, len(images), BATCH):
        yield predict_batch(model, images, begin)
        if progress:
            progress(min(begin + BATCH, len(images)))


def _outputs(model: Any, X: Any) -> tuple[Array, Array | None]:
    """Return predictions and probabilities; without any rows, none."""
    has_proba = hasattr(model, "predict_proba")
    if not len(X):
        return np.zeros(0), np.zeros((0, len(model.classes_))) if has_proba else None
    if not has_proba:
        return model.predict(X), None
    proba: Array = model.predict_proba(X)
    if is_multilabel(model):
        return (proba > TAG_THRESHOLD).astype(int), proba
    return model.classes_[proba.argmax(axis=1)], proba


def _novelty(detector: Any, images: Sequence[Any], ok: Array) -> Array | None:
    """Return the novelty of the images that could be read; None without a detector."""
    if detector is None:
        return None
    readable = [images[i] for i in np.flatnonzero(ok).tolist()]
    if not readable:
        return np.zeros(0)
    return detector[-1].novelty(np.asarray(detector[0].transform(readable)))


def _by_halves(model: Any, images: Sequence[Any]) -> Predictions:
    """Predict; where that fails by an image, predict the halves, down to the bad ones."""
    try:
        return Predictions(np.ones(len(images), bool), *_outputs(model, images), [])
    except ImageError as error:
        if len(images) == 1:
            message = str(error.__cause__ or error)
            failure = Failure(0, name_of(images[0], 0), printable(message))
            return Predictions(np.zeros(1, bool), *_outputs(model, []), [failure])
    middle = len(images) // 2
    one, two = _by_halves(model, images[:middle]), _by_halves(model, images[middle:])
    predicted = [part.predicted for part in (one, two) if part.ok.any()]
    proba = None
    if one.proba is not None and two.proba is not None:
        proba = np.concatenate([one.proba, two.proba])
    return Predictions(
        np.concatenate([one.ok, two.ok]),
        np.concatenate(predicted) if predicted else one.predicted,
        proba,
        one.failures + [Failure(middle + f.index, f.name, f.message) for f in two.failures],
    )
