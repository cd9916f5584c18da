"""A trial prediction of a model that was read from a file, so that defects show when it is loaded."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from featuretl.models.fitted import Fitted

_BLANK = np.zeros((32, 32, 3), np.uint8)


def rehearse(model: Any) -> None:
    """Let a model predict for one blank image, or row, and compare its outputs with its classes.

    Raises
    ------
    ValueError
        If it gives another number of outputs than it has classes; or whatever predicting raises.
    """
    fitted = Fitted.of(model)
    if fitted.novelty is not None:
        if not hasattr(fitted.novelty[-1], "novelty"):
            raise ValueError("its detector of novel images is no NoveltyDetector")
        rehearse(fitted.novelty)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if fitted.tuned is not None:
            _try(fitted.inner, [_BLANK])
        elif fitted.embedder is None:
            _try(fitted.inner, np.zeros((1, fitted.inner.n_features_in_), np.float32))
        elif len(fitted.steps) > 1:
            d = fitted.embedder.recipe()["output"]["n_features"]
            _try(fitted.inner[1:], np.zeros((1, d), np.float32))


def _try(model: Any, X: Any) -> None:
    fitted = Fitted.of(model)
    if fitted.head is None:
        model.transform(X)
        return
    model.predict(X)
    if fitted.tasks is not None:
        for head in fitted.head.estimators_:
            row = np.zeros((1, fitted.head.n_features_in_), np.float32)
            _try(head, row)
            if head.predict(row).shape != (1,):
                raise ValueError("it gives several values for one task")
        return
    if fitted.classes is None:
        return
    classes = len(fitted.classes)
    if fitted.gives_probabilities:
        allowed, scores = {classes}, model.predict_proba(X)
    else:  # SVC may give a column per pair of classes
        allowed, scores = {classes, classes * (classes - 1) // 2}, model.decision_function(X)
    columns = 2 if scores.ndim == 1 else scores.shape[1]
    if columns not in allowed:
        raise ValueError(f"it gives {columns} outputs for {classes} classes")
