"""Predictions and scores of a model for any number of images, a batch in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featuretl._engine import Failure
from featuretl._validation import printable
from featuretl.exceptions import ImageError, InputError
from featuretl.heads.metrics import metrics_report
from featuretl.images.inputs import as_images, name_of

Array = np.ndarray[Any, Any]
# Called with the number of images that are done.
Progress = Callable[[int], Any]

BATCH = 1024


@dataclass(frozen=True)
class Predictions:
    """What a model says of a batch of n images.

    Attributes
    ----------
    ok : ndarray of shape (n,), bool
        Which images could be read.
    predicted : ndarray of shape (k, ..)
        Classes, or numbers, of those.
    proba : ndarray of shape (k, n_classes), float64, or None
        Their probabilities, where the model gives any; `predicted` is then the most probable class.
    failures : list of Failure
        The others, with their positions in the batch.
    """

    ok: Array
    predicted: Array
    proba: Array | None
    failures: list[Failure]


def predict_images(model: Any, images: Sequence[Any]) -> Predictions:
    """Return what a fitted model says of images, the bad ones named.

    Parameters
    ----------
    model : estimator
        Takes images: a pipeline that begins with `ImageEmbedder`, or an estimator of featuretl.
    images : sequence of n images
    """
    model = inner_of(model)
    steps = getattr(model, "steps", [])
    if not steps or not hasattr(steps[0][1], "extract"):
        return _by_halves(model, images)
    extraction = steps[0][1].extract(images)
    ok = extraction.ok
    rest, X = model[1:], extraction.to_numpy()[ok]
    return Predictions(ok, *_outputs(rest, X), extraction.failures)


def evaluate_model(
    model: Any,
    images: Any,
    y: Any,
    *,
    n_bootstrap: int = 200,
    confidence: float = 0.95,
    random_state: Any = 0,
    progress: Progress | None = None,
) -> Bunch:
    """Return the scores of a model on images whose truth is known, with bootstrap intervals.

    Parameters
    ----------
    model : estimator
        See `predict_images`; one class per image, or numbers.
    images : sequence of n images
    y : array-like of shape (n,) or (n, n_outputs)
        Classes, of the type of the model's or as text; or numbers.
    n_bootstrap : int >= 0, default=200
        Resamples of the images; 0 gives no intervals.
    confidence : float in (0, 1), default=0.95
        Share of the resamples that an interval covers.
    random_state : int, RandomState or None, default=0
        Draws the resamples.
    progress : callable, optional
        Called with the number of images that are done.

    Returns
    -------
    Bunch
        As `metrics_report`, over the images that could be read; and `failures`, the others.

    Raises
    ------
    InputError
        If lengths differ, `y` holds a class that the model does not know, or no image can be read.
    """
    check_takes_images(model)
    check_one_class(model)
    images = as_images(images, "evaluate_model")
    y = known_labels(model, y)
    if len(y) != len(images):
        raise InputError(f"y must have one entry per image; got {len(y)} for {len(images)}.")
    parts = list(in_batches(model, images, progress))
    failures = [failure for _, part in parts for failure in part.failures]
    ok = np.concatenate([part.ok for _, part in parts]) if parts else np.zeros(0, bool)
    if not ok.any():
        raise InputError(f"None of {len(images)} images could be read; there is nothing to score.")
    proba = None
    if parts[0][1].proba is not None:
        proba = np.concatenate([part.proba for _, part in parts if part.proba is not None])
    report = metrics_report(
        y[ok],
        np.concatenate([part.predicted for _, part in parts if part.ok.any()]),
        proba,
        task="classification" if hasattr(model, "classes_") else "regression",
        labels=getattr(model, "classes_", None),
        n_bootstrap=n_bootstrap,
        confidence=confidence,
        random_state=random_state,
    )
    return Bunch(**report, failures=failures)


def inner_of(model: Any) -> Any:
    """Return what predicts in a model: of TransferClassifier and -Regressor the winner."""
    return getattr(model, "estimator_", model)


def use_machine(model: Any, **parameters: Any) -> None:
    """Set `cache`, `device` or `n_jobs` of a fitted model, and of all in it that have it."""
    for part in (model, inner_of(model)):
        names = {name: name.split("__")[-1] for name in part.get_params()}
        known = {name: parameters[last] for name, last in names.items() if last in parameters}
        part.set_params(**known)


def in_batches(
    model: Any, images: Sequence[Any], progress: Progress | None = None, start: int = 0
) -> Iterator[tuple[int, Predictions]]:
    """Yield where each batch begins, and its predictions; failures count from the first image."""
    for begin in range(start, len(images), BATCH):
        part = predict_images(model, images[begin : begin + BATCH])
        failures = [Failure(begin + f.index, f.name, f.message) for f in part.failures]
        yield begin, Predictions(part.ok, part.predicted, part.proba, failures)
        if progress:
            progress(min(begin + BATCH, len(images)))


def check_takes_images(model: Any) -> None:
    """Raise InputError unless a model takes images."""
    inner = inner_of(model)
    steps = [step for _, step in getattr(inner, "steps", [("", inner)])]
    first, last = steps[0], steps[-1]
    if not hasattr(first, "_tuned") and not (first is not last and hasattr(first, "extract")):
        raise InputError(
            f"The model must predict from images; got a {type(model).__name__} that does not: use "
            "make_pipeline(ImageEmbedder(), head), TransferClassifier or FineTuneClassifier."
        )


def check_one_class(model: Any) -> None:
    """Raise InputError if a model gives several labels per image."""
    inner = inner_of(model)
    last = inner.steps[-1][1] if hasattr(inner, "steps") else inner
    if getattr(last, "_multilabel", False):
        raise InputError("The model gives several labels per image; use its predict_proba.")


def known_labels(model: Any, y: Any) -> Array:
    """Return `y` as classes of the model, which may be given as text; numbers as they are."""
    if not hasattr(model, "classes_"):
        return np.asarray(y, np.float64)
    by_text = {str(name): name for name in model.classes_.tolist()}
    labels = [str(label) for label in np.asarray(y, object).tolist()]
    unknown = sorted({label for label in labels if label not in by_text})
    if unknown:
        raise InputError(
            f"y holds {len(unknown)} classes that the model does not know, such as "
            f"{printable(unknown[0])!r}; it knows {printable(', '.join(list(by_text)[:20]))}."
        )
    return np.array([by_text[label] for label in labels], model.classes_.dtype)


def _outputs(model: Any, X: Any) -> tuple[Array, Array | None]:
    """Return predictions and probabilities; without any rows, none."""
    has_proba = hasattr(model, "predict_proba")
    if not len(X):
        return np.zeros(0), np.zeros((0, len(model.classes_))) if has_proba else None
    if not has_proba:
        return model.predict(X), None
    proba: Array = model.predict_proba(X)
    return model.classes_[proba.argmax(axis=1)], proba


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
