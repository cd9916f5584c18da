"""A rehearsal: a model that was read from a file predicts once, so that what is wrong shows now."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

_BLANK = np.zeros((32, 32, 3), np.uint8)


def rehearse(model: Any) -> None:
    """Let a model predict for one blank image, or row, and compare its outputs with its classes.

    Raises
    ------
    ValueError
        If it gives another number of outputs than it has classes; or whatever predicting raises.
    """
    if hasattr(model, "novelty_"):
        if not hasattr(model.novelty_[-1], "novelty"):
            raise ValueError("what it tells novel images by is no NoveltyDetector")
        rehearse(model.novelty_)
    if hasattr(model, "strategy_"):  # TransferClassifier or -Regressor
        model = model.estimator_
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if hasattr(model, "_tuned"):
            _try(model, [_BLANK])
            return
        first = model.steps[0][1] if hasattr(model, "steps") else model
        if type(first).__name__ != "ImageEmbedder":
            _try(model, np.zeros((1, model.n_features_in_), np.float32))
        elif first is not model and len(model.steps) > 1:
            d = first.recipe()["output"]["n_features"]
            _try(model[1:], np.zeros((1, d), np.float32))


def _try(model: Any, X: Any) -> None:
    if not hasattr(model, "predict"):
        model.transform(X)
        return
    model.predict(X)
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if hasattr(last, "tasks_"):  # MultiTaskHead
        for head in last.estimators_:
            row = np.zeros((1, last.n_features_in_), np.float32)
            _try(head, row)
            if head.predict(row).shape != (1,):
                raise ValueError("it gives several values for one task")
        return
    if not hasattr(model, "classes_"):
        return
    classes = len(model.classes_)
    if hasattr(model, "predict_proba"):
        allowed, scores = {classes}, model.predict_proba(X)
    else:  # SVC may give a column per pair of classes
        allowed, scores = {classes, classes * (classes - 1) // 2}, model.decision_function(X)
    columns = 2 if scores.ndim == 1 else scores.shape[1]
    if columns not in allowed:
        raise ValueError(f"it gives {columns} outputs for {classes} classes")
