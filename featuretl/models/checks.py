"""Checks of objects from model files: attributes are consistent, and models predict."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from featuretl.exceptions import ParameterError
from featuretl.models.fitted import Fitted

_BLANK = np.zeros((32, 32, 3), np.uint8)


def rehearse(model: Any) -> None:
    """Let a model predict one blank image or row.

    Raises ValueError if the number of outputs does not match its classes, or any error of predict.
    """
    fitted = Fitted.of(model)
    if fitted.novelty is not None:
        if not hasattr(fitted.novelty[-1], "novelty"):
            raise ValueError("novelty_ must end with a NoveltyDetector")
        rehearse(fitted.novelty)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if fitted.tuned is not None:
            _predict_once(fitted.inner, [_BLANK])
        elif fitted.embedder is None:
            _predict_once(fitted.inner, np.zeros((1, fitted.inner.n_features_in_), np.float32))
        elif len(fitted.steps) > 1:
            d = fitted.embedder.recipe()["output"]["n_features"]
            _predict_once(fitted.inner[1:], np.zeros((1, d), np.float32))


def settings_fit(settings: Any) -> bool:
    """Return whether the constructor of a dataclass accepts its values."""
    try:
        type(settings)(**vars(settings))
    except ParameterError:
        return False
    return True


def _predict_once(model: Any, X: Any) -> None:
    fitted = Fitted.of(model)
    if fitted.head is None:
        model.transform(X)
        return
    model.predict(X)
    if fitted.tasks is not None:
        for head in fitted.head.estimators_:
            row = np.zeros((1, fitted.head.n_features_in_), np.float32)
            _predict_once(head, row)
            if head.predict(row).shape != (1,):
                raise ValueError("a task has several predictions per image")
        return
    if fitted.classes is None:
        return
    classes = len(fitted.classes)
    if fitted.gives_probabilities:
        allowed, scores = {classes}, model.predict_proba(X)
    else:  # SVC may have one column per pair of classes
        allowed, scores = {classes, classes * (classes - 1) // 2}, model.decision_function(X)
    columns = 2 if scores.ndim == 1 else scores.shape[1]
    if columns not in allowed:
        raise ValueError(f"it has {columns} outputs for {classes} classes")


def svm_fits(svm: Any) -> bool:
    """Return whether the arrays of an SVC or SVR are consistent; LIBSVM does not check them."""
    s, classes = len(svm.support_), len(svm._n_support)
    rows, columns = (int(size) for size in svm.shape_fit_)
    is_classifier = type(svm).__name__ == "SVC"
    machines = classes * (classes - 1) // 2 if is_classifier else 1
    has_rows = svm.kernel != "precomputed"
    return bool(
        isinstance(svm.kernel, str)
        and columns == svm.n_features_in_
        and (has_rows or rows == columns)
        and not svm._sparse
        and classes >= 2
        and svm.support_vectors_.shape == ((s, columns) if has_rows else (0, 0))
        and ((svm.support_ >= 0) & (svm.support_ < rows)).all()
        and (svm._n_support >= 0).all()
        and (not is_classifier or svm._n_support.astype(np.int64).sum() == s)
        and svm._dual_coef_.shape == (classes - 1 if is_classifier else 1, s)
        and len(svm._intercept_) == machines
        and len(svm._probA) in (0, machines)
        and all(a.dtype == np.float64 for a in (svm._dual_coef_, svm._intercept_, svm._probA))
    )


def tuned_fits(tuned: Any) -> bool:
    """Return whether the width of a fine-tuned head is that of its tensors, before it is built."""
    head = tuned._head
    return head in ("probe", "linear") or (
        isinstance(head, (list, tuple))
        and len(head) == 2
        and head[0] == "mlp"
        and head[1] == len(tuned.state["head.0.weight"])
    )


def novelty_fits(detector: Any) -> bool:
    """Return whether a detector's scores ascend and `fit` would accept its parameters."""
    scores, references = detector.calibration_, detector.references_
    k, level = detector.n_neighbors, detector.level
    return bool(
        isinstance(k, int)
        and 1 <= k <= len(references)
        and isinstance(level, float)
        and 0 < level <= 0.5
        and len(scores) > 0
        and np.isfinite(references).all()
        and np.isfinite(scores).all()
        and (np.diff(scores) >= 0).all()
        and 1 <= detector.calibration_worth_ <= len(scores)
        and not np.isnan(detector.offset_)
    )


def views_fit(model: Any) -> bool:
    """Return whether the head of a `ViewsClassifier` classifies the columns of one view."""
    head, n_views = Fitted.of(model.estimator_), model.n_views
    return bool(
        isinstance(n_views, (int, np.integer))
        and n_views >= 1
        and head.head is not None
        and type(head.model) is not type(model)
        and getattr(head.model, "n_features_in_", None) == model.n_features_in_ / n_views
        and np.array_equal(head.classes, model.classes_)
    )


def tasks_fit(model: Any) -> bool:
    """Return whether the tasks of a `MultiTaskHead` match its heads."""
    tasks, heads, ranges = model.tasks_, model.estimators_, model.ranges_
    return bool(
        isinstance(tasks, dict)
        and isinstance(heads, list)
        and isinstance(ranges, dict)
        and len(tasks) == len(heads) > 0
        and all(isinstance(name, str) for name in tasks)
        and all(
            head.head is not None
            and head.tasks is None
            and getattr(head.model, "n_features_in_", None) == model.n_features_in_
            and kind == ("regression" if head.classes is None else "classification")
            for kind, head in zip(tasks.values(), map(Fitted.of, heads), strict=True)
        )
        and list(ranges) == [name for name, kind in tasks.items() if kind == "regression"]
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in ranges.values())
        and all(isinstance(limit, float) for pair in ranges.values() for limit in pair)
    )


def attention_fits(head: Any) -> bool:
    """Return whether the views of an `AttentionPoolingClassifier` match its columns."""
    return bool(
        isinstance(head.n_views, (int, np.integer))
        and len(head.mean_) * head.n_views == head.n_features_in_
    )
