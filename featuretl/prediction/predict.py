"""Predictions of a model for any number of images, with one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl.exceptions import ImageError
from featuretl.extraction.statistics import Failure
from featuretl.images.inputs import name_of
from featuretl.models.fitted import Fitted

Progress = Callable[[int], Any]  # called with the number of finished images

BATCH = 1024
TAG_THRESHOLD = 0.5  # the probability above which a label of a multi-label model is predicted


@dataclass(eq=False, frozen=True)
class Predictions:
    """Predictions for n images, of which k are readable; for several tasks, dicts of them."""

    ok: Array  # bool (n,): whether the image is readable
    predicted: Any  # (k, ..): classes, numbers, or for a multi-label model 0 and 1 (k, n_labels)
    proba: Any  # (k, n_classes); None without probabilities
    failures: list[Failure]  # the unreadable images with their positions
    novelty: Array | None = None  # (k,), see `NoveltyDetector.novelty`

    def of_task(self, name: str) -> Predictions:
        """Return the predictions of one task of a multi-task model."""
        return replace(self, predicted=self.predicted[name], proba=self.proba[name])


def predict_images(model: Any, images: Sequence[Any], *, novelty: bool = False) -> Predictions:
    """Return the predictions of a model. Raises InputError for `novelty` without a detector."""
    fitted = Fitted.of(model)
    detector = fitted.detector if novelty else None
    X = None
    if fitted.tuned is not None:
        found = _bisect(fitted, images)
    else:
        extraction = fitted.embedder.extract(images)
        X = extraction.to_numpy()[extraction.ok]
        found = Predictions(extraction.ok, *_of_tasks(fitted, X), extraction.failures)
    if detector is None:
        return found
    readable = [images[i] for i in np.flatnonzero(found.ok).tolist()]
    if not readable:
        return replace(found, novelty=np.zeros(0))
    if X is None or detector[0].recipe() != fitted.embedder.recipe():
        X = np.asarray(detector[0].transform(readable))
    return replace(found, novelty=detector[-1].novelty(X))


def predict_batch(
    model: Any, images: Sequence[Any], begin: int, *, novelty: bool = False
) -> Predictions:
    """Return the predictions of the batch that begins at `begin`; failures count from image 0."""
    part = predict_images(model, images[begin : begin + BATCH], novelty=novelty)
    return replace(part, failures=_moved(part.failures, begin))


def in_batches(
    model: Any, images: Sequence[Any], progress: Progress | None
) -> Iterator[Predictions]:
    """Yield the predictions of each batch; positions of failures count from the first image."""
    fitted = Fitted.of(model)
    for begin in range(0, len(images), BATCH):
        yield predict_batch(fitted, images, begin)
        if progress:
            progress(min(begin + BATCH, len(images)))


def use_machine(model: Any, **parameters: Any) -> None:
    """Set `cache`, `device` or `n_jobs` in all parts of a fitted model that have it."""
    fitted = Fitted.of(model)
    for part in (fitted.model, fitted.inner, fitted.novelty):
        if part is not None:
            names = {name: name.split("__")[-1] for name in part.get_params()}
            known = {name: parameters[last] for name, last in names.items() if last in parameters}
            part.set_params(**known)


def task_models(model: Any) -> dict[str, Any] | None:
    """Return one single-task model per task of a multi-task model; None for other models.

    Parameters
    ----------
    model : estimator
        Fitted: a pipeline that ends with `MultiTaskHead`, or `TransferMultiTask`.

    Returns
    -------
    dict of str to Pipeline, or None
        The models share the steps before the heads, and can be passed to `explain`,
        `export_model` and `save_model`.

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
    tasks = Fitted.of(model).tasks
    return None if tasks is None else {name: task.model for name, task in tasks.items()}


def _of_tasks(fitted: Fitted, X: Array) -> tuple[Any, Any]:
    """Return predictions and probabilities of embeddings; dicts by task for a multi-task model."""
    if fitted.tasks is None:
        return _outputs(fitted, fitted.inner[1:], X)
    found = {name: _outputs(task, task.inner[1:], X) for name, task in fitted.tasks.items()}
    predicted = {name: one[0] for name, one in found.items()}
    return predicted, {name: one[1] for name, one in found.items()}


def _outputs(fitted: Fitted, predictor: Any, X: Any) -> tuple[Array, Array | None]:
    """Return predictions and probabilities of `predictor`, which is not called for empty X."""
    classes = fitted.classes
    if not len(X):
        return np.zeros(0), np.zeros((0, len(classes))) if fitted.gives_probabilities else None
    if not fitted.gives_probabilities:
        return predictor.predict(X), None
    proba: Array = predictor.predict_proba(X)
    if fitted.kind == "multilabel":
        return (proba > TAG_THRESHOLD).astype(int), proba
    return classes[proba.argmax(axis=1)], proba


def _bisect(fitted: Fitted, images: Sequence[Any]) -> Predictions:
    """Return predictions; if an image is unreadable, bisect the images to find it."""
    try:
        return Predictions(np.ones(len(images), bool), *_outputs(fitted, fitted.inner, images), [])
    except ImageError as error:
        if len(images) == 1:
            message = str(error.__cause__ or error)
            failure = Failure(0, name_of(images[0], 0), printable(message))
            return Predictions(np.zeros(1, bool), *_outputs(fitted, None, []), [failure])
    middle = len(images) // 2
    halves = one, two = _bisect(fitted, images[:middle]), _bisect(fitted, images[middle:])
    failures = one.failures + _moved(two.failures, middle)
    return Predictions(np.concatenate([one.ok, two.ok]), *concatenated(halves), failures)


def concatenated(parts: Sequence[Predictions]) -> tuple[Array, Array | None]:
    """Return the concatenated predictions and probabilities of batches."""
    readable = [part for part in parts if part.ok.any()] or parts[:1]
    predicted = np.concatenate([part.predicted for part in readable])
    if readable[0].proba is None:
        return predicted, None
    return predicted, np.concatenate([part.proba for part in readable])


def _moved(failures: list[Failure], by: int) -> list[Failure]:
    return [replace(failure, index=by + failure.index) for failure in failures]
