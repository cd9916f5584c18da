"""The subject of a report: images, labels, embeddings, predictions and out-of-fold rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from featuretl._core.parameters import parameter_error
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, joined, read_groups, subset
from featuretl._learning.labels import all_numbers, one_label_each
from featuretl.exceptions import InputError
from featuretl.extraction.embedder import ImageEmbedder
from featuretl.extraction.statistics import Failure
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images, name_of
from featuretl.models.card import Card, trained_on
from featuretl.models.fitted import Fitted
from featuretl.prediction.evaluate import known_labels
from featuretl.prediction.predict import Progress, concatenated, in_batches
from featuretl.report.probe import HeldOut, Probe

_OWNER = "write_report"


@dataclass(eq=False, frozen=True)
class Training:
    """The training images of a model, for leaks and the learning curve."""

    names: list[str]
    images: Sequence[Any]
    y: Array
    X: Array
    keys: Array  # sha256, S32 (n,)


@dataclass(eq=False)
class Subject:
    """n readable, labelled images with their embeddings and predictions."""

    images: list[Any]
    names: list[str]  # full paths
    y: Array  # (n,), classes or regression targets
    classes: Array | None  # None for regression
    groups: Array | None  # (n,)
    X: Array  # (n, d), embeddings of the frozen backbone
    shown_X: Array  # (n, d), embeddings for the map: of the fine-tuned network, if there is one
    predicted: Array  # (n,)
    proba: Array | None  # (n, n_classes)
    scored: Array  # bool (n,): the images that the scores are computed on
    scores_are: str  # description of the predictions that are scored
    title: str
    held_out: HeldOut | None = None  # None without two folds
    label_proba: Array | None = None  # (n, n_classes), of models not trained on the image
    label_source: str = ""  # description of these models
    warnings: list[str] = field(default_factory=list)  # caveats about the scores
    failures: list[Failure] = field(default_factory=list)  # unreadable images
    model: Any = None
    training: Training | None = None
    trained_on: int | None = None  # number of training images among the n; None if unknown

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def short_names(self) -> list[str]:
        """The names relative to their common folder."""
        return short_names(self.names)

    @property
    def is_wrong(self) -> Array:
        """Whether each image is scored and misclassified, bool (n,); False in regression."""
        return self.scored & (self.predicted != self.y) & (self.classes is not None)

    def text_of(self, value: Any) -> str:
        """Return a label or a prediction as text."""
        return f"{value:.4g}" if self.classes is None else str(value)


def short_names(names: list[str]) -> list[str]:
    """Return the names relative to their common folder."""
    folders = [os.path.dirname(name) for name in names]  # noqa: PTH120
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no names, or a mix of absolute and relative ones
        return names
    return [os.path.relpath(name, common) if common else name for name in names]


def subject_of_embeddings(
    X: Array, images: Any, y: Any, groups: Any, is_regression: bool, cv: int, seed: int
) -> Subject:
    """Return embeddings (n, d) as a subject with out-of-fold predictions of a linear probe."""
    images = as_images(images, _OWNER)
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind != "f":
        raise InputError(
            f"{_OWNER} needs a fitted model, or embeddings of floating-point numbers and shape "
            f"(n, d); got {X.dtype} of shape {X.shape}."
        )
    for name, value in {"images": images, "y": y}.items():
        if len(value) != len(X):
            got = f"{len(value)} for {len(X)}"
            raise InputError(f"{name} must have one entry per embedding; got {got}.")
    ok = np.isfinite(X).all(axis=1)
    if not ok.any():
        raise InputError(f"None of {len(X)} images has an embedding; pass embeddings without NaN.")
    rows = np.flatnonzero(ok).tolist()
    target = (all_numbers if is_regression else one_label_each)(_OWNER, y)[rows]
    classes = None if is_regression else np.unique(target)
    X = X[rows]
    common = _common_fields(images, rows, groups, X)
    held = Probe(X, target, classes, common["groups"]).out_of_fold(cv, seed)
    bad = np.flatnonzero(~ok).tolist()
    return Subject(
        **common,
        y=target,
        classes=classes,
        shown_X=X,
        predicted=held.predicted,
        proba=held.proba,
        scored=held.ok,
        held_out=held,
        label_proba=held.proba,
        label_source="the linear probe's out-of-fold probabilities",
        scores_are=f"out-of-fold predictions of a linear probe on the embeddings: {held.how}",
        title="Linear probe",
        failures=[Failure(i, name_of(images[i], i), "it has no embedding") for i in bad],
    )


def subject_of_model(
    model: Any, images: Any, y: Any, groups: Any, train: Any, card: Card, cache: Any, cv: int,
    seed: int, progress: Progress | None,
) -> Subject:  # fmt: skip
    """Return images with the predictions of a model; `train` and `card` are as in write_report."""
    fitted, embedder = Fitted.of_images(model), embedder_of(model, cache)
    if fitted.kind == "multilabel":
        raise InputError(
            "A report needs one class or one regression target per image; got a multi-label model. "
            "Use featuretl evaluate, or evaluate_model."
        )
    training = None if train is None else _training(fitted, train, embedder)
    images = as_images(images, _OWNER)
    y = known_labels(fitted, y, _OWNER, len(images))
    parts = list(in_batches(fitted, images, progress))
    ok = np.concatenate([part.ok for part in parts] or [np.zeros(0, bool)])
    rows = np.flatnonzero(ok).tolist()
    if not rows:
        raise InputError(f"None of {len(images)} images could be read; check their paths.")
    readable = [images[i] for i in rows]
    predicted, proba = concatenated(parts)
    extraction = embedder.extract(readable)
    X = extraction.to_numpy()
    subject = Subject(
        **_common_fields(images, rows, groups, X),
        y=y[rows],
        classes=fitted.classes,
        shown_X=X if fitted.tuned is None else np.asarray(fitted.embedder.transform(readable)),
        predicted=predicted,
        proba=proba,
        scored=np.ones(len(rows), bool),
        scores_are="predictions of the model",
        title=type(model).__name__,
        failures=[failure for part in parts for failure in part.failures],
        model=model,
        training=training,
    )
    _exclude_training_images(subject, card, extraction.keys)
    _add_out_of_fold(subject, cv, seed)
    return subject


def embedder_of(model: Any, cache: Any) -> ImageEmbedder:
    """Return an embedder with the pretrained backbone of a model."""
    first = Fitted.of(model).embedder
    if isinstance(first, ImageEmbedder):
        return first
    return ImageEmbedder(
        first.backbone, weights=first.weights, device=first.device, n_jobs=first.n_jobs, cache=cache
    )


def _training(fitted: Fitted, train: tuple[Any, Any], embedder: ImageEmbedder) -> Training:
    """Return the readable training images with their embeddings."""
    images = as_images(train[0], _OWNER)
    y = known_labels(fitted, train[1], _OWNER)
    if len(y) != len(images):
        raise parameter_error(_OWNER, "train", "one label per image", (len(images), len(y)))
    extraction = embedder.extract(images)
    rows = np.flatnonzero(extraction.ok).tolist()
    return Training(
        names=[name_of(images[i], i) for i in rows],
        images=[images[i] for i in rows],
        y=y[rows],
        X=extraction.rows(np.array(rows, int)),
        keys=extraction.keys[rows],
    )


def _exclude_training_images(subject: Subject, card: Card, keys: Array) -> None:
    """Exclude training images from the scores where others remain, and add the caveats."""
    n, seen = len(subject), trained_on(card, keys)
    if subject.training is not None:
        seen = np.isin(keys, subject.training.keys) | (False if seen is None else seen)
    if seen is None:
        subject.warnings.append(
            "The training images of the model are unknown (neither its card nor train names them): "
            "the scores are unbiased only if none of these images is one of them."
        )
        return
    subject.trained_on = int(seen.sum())
    if not seen.any():
        subject.scores_are += f"; none of the {n:,} images is a training image"
    elif seen.all():
        subject.warnings.append(
            f"The model was trained on all of these {n:,} images: the scores below are training "
            "scores, which are too optimistic. Report on images that were not used in training."
        )
    else:
        subject.scored = ~seen
        subject.warnings.append(
            f"The model was trained on {seen.sum():,} of these {n:,} images: the scores, the "
            f"confusion matrix and the mistakes are those of the other {n - seen.sum():,} images."
        )


def _add_out_of_fold(subject: Subject, cv: int, seed: int) -> None:
    """Add out-of-fold predictions if two folds exist, and the probabilities for label errors."""
    try:
        probe = Probe(subject.X, subject.y, subject.classes, subject.groups)
        subject.held_out = probe.out_of_fold(cv, seed)
    except InputError as error:
        subject.warnings.append(f"The images cannot be split into folds: {error}")
    if subject.trained_on == 0 and subject.proba is not None:
        subject.label_proba = subject.proba
        subject.label_source = "the model's probabilities (it was not trained on these images)"
    elif subject.held_out is not None:
        subject.label_proba = subject.held_out.proba
        source = "out-of-fold probabilities of a linear probe on the backbone's embeddings"
        subject.label_source = f"{source}: {subject.held_out.how}"


def _common_fields(images: Any, rows: list[int], groups: Any, X: Array) -> dict[str, Any]:
    """Return fields of the Subject of `rows`; groups are merged where embeddings X are equal."""
    groups = read_groups(_OWNER, or_files(groups, images), len(images))
    group = subset(groups, np.array(rows))
    copies, warnings = copies_of(X), []
    if copies is not None:
        warnings.append(
            f"{len(rows) - int(copies.max()) - 1:,} of these {len(rows):,} images are copies of "
            "others (same content, possibly other labels): copies share a fold and count as one "
            "draw."
        )
    return {
        "images": [images[i] for i in rows],
        "names": [name_of(images[i], i) for i in rows],
        "groups": joined(group, copies),
        "X": X,
        "warnings": warnings,
    }
