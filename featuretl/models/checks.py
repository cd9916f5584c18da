"""What kinds alone do not say of an object in a model file: whether its arrays fit together."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_svm(svm: Any) -> None:
    """Raise ValueError unless the arrays of an SVC or SVR fit together, as LIBSVM takes them to."""
    s, classes = len(svm.support_), len(svm._n_support)
    rows, columns = (int(size) for size in svm.shape_fit_)
    is_classifier = type(svm).__name__ == "SVC"
    machines = classes * (classes - 1) // 2 if is_classifier else 1
    has_rows = svm.kernel != "precomputed"
    fits = (
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
    if not fits:
        raise ValueError(f"the arrays of its {type(svm).__name__} do not fit together")


def check_tuned(tuned: Any) -> None:
    """Raise ValueError unless a tuned head is as wide as its tensors: it is built before they are."""
    head = tuned._head
    if head not in ("probe", "linear") and not (
        isinstance(head, (list, tuple))
        and len(head) == 2
        and head[0] == "mlp"
        and head[1] == len(tuned.state["head.0.weight"])
    ):
        raise ValueError("the head of its tuned network does not fit its tensors")


def check_novelty(detector: Any) -> None:
    """Raise ValueError unless a detector's scores ascend and its parameters are what `fit` takes."""
    scores, references = detector.calibration_, detector.references_
    k, level = detector.n_neighbors, detector.level
    fits = (
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
    if not fits:
        raise ValueError("the arrays of its NoveltyDetector do not fit together")


def check_views(model: Any) -> None:
    """Raise ValueError unless the head of a `ViewsClassifier` is one, of a view's columns."""
    head, n_views = model.estimator_, model.n_views
    fits = (
        isinstance(n_views, (int, np.integer))
        and n_views >= 1
        and hasattr(head, "predict")
        and type(head) is not type(model)
        and getattr(head, "n_features_in_", None) == model.n_features_in_ / n_views
        and np.array_equal(getattr(head, "classes_", []), model.classes_)
    )
    if not fits:
        raise ValueError("the head of its ViewsClassifier does not fit its views")


def check_tasks(head: Any) -> None:
    """Raise ValueError unless the tasks of a `MultiTaskHead` and its heads fit together."""
    tasks, heads, ranges = head.tasks_, head.estimators_, head.ranges_
    fits = (
        isinstance(tasks, dict)
        and isinstance(heads, list)
        and isinstance(ranges, dict)
        and len(tasks) == len(heads) > 0
        and all(isinstance(name, str) for name in tasks)
        and all(
            hasattr(one, "predict")
            and not hasattr(one, "tasks_")
            and getattr(one, "n_features_in_", None) == head.n_features_in_
            and kind == ("classification" if hasattr(one, "classes_") else "regression")
            for kind, one in zip(tasks.values(), heads, strict=True)
        )
        and list(ranges) == [name for name, kind in tasks.items() if kind == "regression"]
        and all(_is_range(value) for value in ranges.values())
    )
    if not fits:
        raise ValueError("the tasks of its MultiTaskHead do not fit together")


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(number, float) for number in value)
    )


def check_attention(head: Any) -> None:
    """Raise ValueError unless the views of an `AttentionPoolingClassifier` have its columns."""
    fits = (
        isinstance(head.n_views, (int, np.integer))
        and len(head.mean_) * head.n_views == head.n_features_in_
    )
    if not fits:
        raise ValueError("its AttentionPoolingClassifier does not fit its views")
