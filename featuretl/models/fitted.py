"""What a fitted model is: all code outside the estimators asks here, and not the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from featuretl.exceptions import InputError


@dataclass(eq=False, frozen=True)
class Fitted:
    """The parts of a fitted model.

    Attributes
    ----------
    model : estimator
        The model itself.
    inner : estimator
        The part that predicts: the winner of a `TransferClassifier`, `TransferRegressor` or
        `TransferMultiTask`, otherwise the model itself.
    steps : list of (str, estimator)
        The steps of a pipeline; any other estimator is its own only step.
    embedder : estimator or None
        The first step, if it takes images or another medium: an `ImageEmbedder`, a `MediaEmbedder`
        or a fine-tuned estimator.
    head : estimator or None
        The last step, if it predicts.
    classes : ndarray of shape (n_classes,), or None
        None for a regression; a dict of arrays, by task, for a multi-task model.
    tuned : Tuned or None
        The fine-tuned network.
    novelty : Pipeline or None
        An `ImageEmbedder` and the `NoveltyDetector` of the training images.
    gives_probabilities : bool
        Whether there is a `predict_proba`.
    """

    model: Any
    inner: Any
    steps: list[tuple[str, Any]]
    embedder: Any
    head: Any
    classes: Any
    tuned: Any
    novelty: Any
    gives_probabilities: bool

    @classmethod
    def of(cls, model: Any) -> Fitted:
        """Return the parts of an estimator; a `Fitted` is returned unchanged."""
        if isinstance(model, Fitted):
            return model
        # Only the Transfer estimators have a strategy_; an estimator_ is in other estimators, too.
        inner = model.estimator_ if hasattr(model, "strategy_") else model
        steps = getattr(inner, "steps", [("model", inner)])
        first, last = steps[0][1], steps[-1][1]
        return cls(
            model=model,
            inner=inner,
            steps=steps,
            embedder=first if hasattr(first, "extract") or hasattr(first, "_tuned") else None,
            head=last if is_model(last) else None,
            classes=getattr(last, "classes_", None),
            tuned=getattr(first, "_tuned", None),
            novelty=getattr(model, "novelty_", None),
            gives_probabilities=hasattr(inner, "predict_proba"),
        )

    @classmethod
    def of_images(cls, model: Any, *, other_media: bool = False) -> Fitted:
        """Return the parts of a model that takes images, or with `other_media` any medium.

        Raises
        ------
        InputError
            If the model does not take images, or predicts several lists of classes.
        """
        fitted = cls.of(model)
        name = type(fitted.model).__name__
        if hasattr(fitted.embedder, "medium") and not other_media:
            raise InputError(
                "The model must predict from images; got a pipeline of "
                f"{type(fitted.embedder).__name__}: use evaluate_model and predict, or write_report "
                "on the matrix of its embeddings."
            )
        if fitted.embedder is None or fitted.head is None:
            raise InputError(
                f"The model must predict from images; got a {name} that does not: use "
                "make_pipeline(ImageEmbedder(), head), TransferClassifier or FineTuneClassifier."
            )
        if isinstance(fitted.classes, list):
            raise InputError(
                f"The {type(fitted.head).__name__} gives several classes per image, each of a list "
                "of its own; use LinearProbeClassifier for several labels per image."
            )
        return fitted

    @cached_property
    def tasks(self) -> dict[str, Fitted] | None:
        """The tasks of a multi-task model, each as a model of its own; None for other models."""
        names = getattr(self.head, "tasks_", None)
        if names is None:
            return None
        return {
            name: Fitted.of(Pipeline([*self.steps[:-1], ("head", head)]))
            for name, head in zip(names, self.head.estimators_, strict=True)
        }

    @cached_property
    def kind(self) -> str:
        """One of "classification", "multilabel", "regression" and "multitask"."""
        if self.tasks is not None:
            return "multitask"
        if self.classes is None:
            return "regression"
        is_multilabel = getattr(self.head, "_multilabel", None)
        d = getattr(self.head, "n_features_in_", None)
        if is_multilabel is None and d is not None:  # scikit-learn's heads only show it in predict
            is_multilabel = self.head.predict(np.zeros((1, d), np.float32)).ndim == 2
        return "multilabel" if is_multilabel else "classification"

    @property
    def detector(self) -> Pipeline:
        """The same as `novelty`; raises InputError where that is None."""
        if self.novelty is None:
            raise InputError(
                "The model does not know which images are unlike the training ones; train it again, "
                "with novelty, by featuretl train, TransferClassifier or TransferRegressor."
            )
        return self.novelty


def is_model(value: Any) -> bool:
    """Return whether a value is an estimator that predicts, rather than data."""
    return hasattr(value, "predict")
