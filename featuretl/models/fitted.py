"""Introspection of fitted models: the only code outside the estimators that inspects them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from featuretl.exceptions import InputError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(eq=False, frozen=True)
class Fitted:
    """The parts of a fitted model."""

    model: Any
    inner: Any  # the estimator that predicts: the winner of a Transfer estimator, or `model`
    steps: list[tuple[str, Any]]  # of a pipeline, or the estimator as the only step
    embedder: Any  # the first step if it takes images or another medium, or is fine-tuned
    head: Any  # the last step if it predicts, otherwise None
    classes: Any  # (n_classes,); None for regression; a dict by task for a multi-task model
    tuned: Any  # the fine-tuned network, a `Tuned`, or None
    novelty: Any  # a pipeline of `ImageEmbedder` and `NoveltyDetector`, or None
    gives_probabilities: bool

    @classmethod
    def of(cls, model: Any) -> Fitted:
        """Return the parts of an estimator; a `Fitted` is returned unchanged."""
        if isinstance(model, Fitted):
            return model
        # Other estimators have an estimator_, too; only Transfer estimators have a strategy_.
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
        """Return the parts of an image model, or with `other_media` any medium; else InputError."""
        fitted = cls.of(model)
        name = type(fitted.model).__name__
        if hasattr(fitted.embedder, "medium") and not other_media:
            raise InputError(
                "The model must predict from images; got a pipeline with "
                f"{type(fitted.embedder).__name__}. Use predict, evaluate_model, or write_report "
                "on the matrix of its embeddings."
            )
        if fitted.embedder is None or fitted.head is None:
            raise InputError(
                f"The model must predict from images; got a {name} that does not. Use "
                "make_pipeline(ImageEmbedder(), head), TransferClassifier or FineTuneClassifier."
            )
        if isinstance(fitted.classes, list):
            raise InputError(
                f"The {type(fitted.head).__name__} is a multi-output classifier, which is not "
                "supported; use LinearProbeClassifier for several labels per image."
            )
        return fitted

    @cached_property
    def tasks(self) -> dict[str, Fitted] | None:
        """One single-task model per task of a multi-task model; None for other models."""
        names = getattr(self.head, "tasks_", None)
        if names is None:
            return None
        from sklearn.pipeline import Pipeline

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
        if is_multilabel is None and d is not None:  # scikit-learn's heads reveal it in predict
            is_multilabel = self.head.predict(np.zeros((1, d), np.float32)).ndim == 2
        return "multilabel" if is_multilabel else "classification"

    @property
    def detector(self) -> Pipeline:
        """The same as `novelty`. Raises InputError if that is None."""
        if self.novelty is None:
            raise InputError(
                "The model has no novelty detector; train it again with featuretl train, or with "
                "TransferClassifier or TransferRegressor and novelty=True."
            )
        return self.novelty


def is_model(value: Any) -> bool:
    """Return whether a value is an estimator that predicts, rather than data."""
    return hasattr(value, "predict")
