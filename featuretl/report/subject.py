"""The subject of a report: images, labels, predictions and embeddings, and which were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl._learning.labels import all_numbers, one_label_each
from featuretl.exceptions import InputError
from featuretl.extraction.embedder import ImageEmbedder
from featuretl.extraction.engine import Failure
from featuretl.images.inputs import as_images, name_of
from featuretl.models.fitted import Fitted
from featuretl.prediction.evaluate import known_labels
from featuretl.prediction.predict import Progress, in_batches
from featuretl.report.names import short_names
from featuretl.report.probe import HeldOut, out_of_fold

# From the sha256 of images (n,) to which of them were trained on (n,); None where that is unknown.
Seen = Callable[[Array], Array | None]

_OWNER = "write_report"


@dataclass(eq=False)
class Subject:
    """n labelled images that could be read, their embeddings and predictions."""

    images: list[Any]
    names: list[str]  # in full
    y: Array  # (n,), classes or regression targets
    classes: Array | None  # None for regression
    groups: Array | None  # (n,)
    X: Array  # (n, d), embeddings of the frozen backbone
    shown_X: Array  # (n, d) on the map: of the fine-tuned network, if there is one
    predicted: Array  # (n,)
    proba: Array | None  # (n, n_classes)
    scored: Array  # (n,), bool: which images the scores are of
    scores_are: str  # what is scored, in words
    title: str
    held_out: HeldOut | None = None  # None where no folds can be made
    label_proba: Array | None = None  # (n, n_classes), by models that did not see the image
    label_source: str = ""  # these models, in words
    warnings: list[str] = field(default_factory=list)  # caveats about the scores
    failures: list[Failure] = field(default_factory=list)  # images that cannot be read
    model: Any = None
    trained_on: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def short_names(self) -> list[str]:
        """The names without the folder that they have in common."""
        return short_names(self.names)

    def text_of(self, value: Any) -> str:
        """Return a label, or a prediction, in words."""
        return f"{value:.4g}" if self.classes is None else str(value)


def subject_of_embeddings(
    X: Array, images: Any, y: Any, groups: Any, is_regression: bool, cv: int, seed: int
) -> Subject:
    """Return embeddings (n, d) as a subject, scored on out-of-fold predictions of a linear probe."""
    images = as_images(images, _OWNER)
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind != "f":
        raise InputError(
            f"{_OWNER} needs a fitted model, or embeddings (n, d) of floating-point numbers; got "
            f"{X.dtype} of shape {X.shape}."
        )
    _check_lengths(len(X), images=images, y=y)
    ok = np.isfinite(X).all(axis=1)
    if not ok.any():
        raise InputError(f"None of {len(X)} images has an embedding; there is nothing to report.")
    rows = np.flatnonzero(ok).tolist()
    target = (all_numbers if is_regression else one_label_each)(_OWNER, y)[rows]
    classes = None if is_regression else np.unique(target)
    kept, copies = _with_copies(groups, len(images), X[rows], rows)
    held = out_of_fold(X[rows], target, classes, kept, cv, seed)
    failures = [
        Failure(i, name_of(images[i], i), "it has no embedding")
        for i in np.flatnonzero(~ok).tolist()
    ]
    return Subject(
        images=[images[i] for i in rows],
        names=[name_of(images[i], i) for i in rows],
        y=target,
        classes=classes,
        groups=kept,
        X=X[rows],
        shown_X=X[rows],
        predicted=held.predicted,
        proba=held.proba,
        scored=held.ok,
        held_out=held,
        label_proba=held.proba,
        label_source="the linear probe's out-of-fold probabilities",
        scores_are=f"out-of-fold predictions of a linear probe on the embeddings: {held.how}",
        title="Linear probe",
        warnings=copies,
        failures=failures,
    )


def subject_of_model(
    model: Any,
    images: Any,
    y: Any,
    groups: Any,
    seen: Seen,
    cache: Any,
    cv: int,
    seed: int,
    progress: Progress | None,
) -> Subject:
    """Return images with the predictions of a fitted model, which was trained on those `seen`."""
    fitted = Fitted.of_images(model)
    if fitted.kind == "multilabel":
        raise InputError(
            "A report takes one class or one regression target per image; this model gives several labels per "
            "image: use featuretl evaluate, or evaluate_model."
        )
    images = as_images(images, _OWNER)
    y = known_labels(fitted, y, _OWNER)
    _check_lengths(len(images), y=y)
    parts = list(in_batches(fitted, images, progress))
    ok = np.concatenate([part.ok for part in parts] or [np.zeros(0, bool)])
    rows = np.flatnonzero(ok).tolist()
    if not rows:
        raise InputError(f"None of {len(images)} images could be read; there is nothing to report.")
    readable = [images[i] for i in rows]
    extraction = embedder_of(model, cache).extract(readable)
    X = extraction.to_numpy()
    kept, copies = _with_copies(groups, len(images), X, rows)
    subject = Subject(
        images=readable,
        names=[name_of(images[i], i) for i in rows],
        y=y[rows],
        classes=fitted.classes,
        groups=kept,
        X=X,
        shown_X=_shown_embeddings(model, readable, extraction),
        predicted=np.concatenate([part.predicted for part in parts if part.ok.any()]),
        proba=np.concatenate([part.proba for part in parts])
        if parts[0].proba is not None
        else None,
        scored=np.ones(len(rows), bool),
        scores_are="predictions of the model",
        title=type(model).__name__,
        warnings=copies,
        failures=[failure for part in parts for failure in part.failures],
        model=model,
    )
    _say_what_was_trained_on(subject, seen(extraction.keys))
    _add_out_of_fold(subject, cv, seed)
    return subject


def embedder_of(model: Any, cache: Any) -> ImageEmbedder:
    """Return an embedder with the frozen backbone of a model."""
    first = Fitted.of(model).embedder
    if isinstance(first, ImageEmbedder):
        return first
    return ImageEmbedder(
        first.backbone,
        weights=first.weights,
        device=first.device,
        n_jobs=first.n_jobs,
        cache=cache,
    )


def _shown_embeddings(model: Any, images: Sequence[Any], extraction: Any) -> Array:
    first = Fitted.of(model).embedder
    if isinstance(first, ImageEmbedder):
        shown: Array = extraction.to_numpy()
        return shown
    tuned: Array = np.asarray(first.transform(images))
    return tuned


def _say_what_was_trained_on(subject: Subject, seen: Array | None) -> None:
    """Score the images that the model was not trained on, and add the caveats."""
    n = len(subject)
    if seen is None:
        subject.warnings.append(
            "The model does not say which images it was trained on: the scores are held out only if "
            "none of these was."
        )
        return
    subject.trained_on = int(seen.sum())
    if not seen.any():
        subject.scores_are += f"; none of the {n:,} images was trained on"
    elif seen.all():
        subject.warnings.append(
            f"The model was trained on all of these {n:,} images: the scores below are those of "
            "training, and flatter it. Report on images that had no part in training."
        )
    else:
        subject.scored = ~seen
        subject.warnings.append(
            f"The model was trained on {seen.sum():,} of these {n:,} images: they are left out of the "
            f"scores, the matrix and the mistakes, which are of the other {n - seen.sum():,}."
        )


def _add_out_of_fold(subject: Subject, cv: int, seed: int) -> None:
    """Add out-of-fold predictions, where folds can be made, and the probabilities that judge labels."""
    try:
        subject.held_out = out_of_fold(
            subject.X, subject.y, subject.classes, subject.groups, cv, seed
        )
    except InputError as error:
        subject.warnings.append(f"No folds could be made: {error}")
    if subject.trained_on == 0 and subject.proba is not None:
        subject.label_proba = subject.proba
        subject.label_source = "the model's probabilities, which never saw these images"
    elif subject.held_out is not None:
        subject.label_proba = subject.held_out.proba
        subject.label_source = (
            "out-of-fold probabilities of a linear probe on the backbone's embeddings: "
            + subject.held_out.how
        )


def _with_copies(groups: Any, n: int, X: Array, rows: list[int]) -> tuple[Array | None, list[str]]:
    """Return groups of `rows` in which images of equal embeddings X (k, d) are together; a warning."""
    group, copies = read_groups(_OWNER, groups, n), copies_of(X)
    group = None if group is None else group[rows]
    if copies is None:
        return group, []
    many = len(rows) - int(copies.max()) - 1
    said = (
        f"{many:,} of these {len(rows):,} images are copies of others (the same content, whatever their "
        "labels say): copies share a fold, and count as one draw."
    )
    return joined(group, copies), [said]


def _check_lengths(n: int, **others: Any) -> None:
    for name, value in others.items():
        if value is not None and len(value) != n:
            raise InputError(f"{name} must have one entry per image; got {len(value)} for {n}.")
