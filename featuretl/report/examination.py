"""All findings of a report as DataFrames and numbers: scores, mistakes, label errors, leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from featuretl._core.text import plain_json
from featuretl._core.types import Array
from featuretl._learning.groups import subset
from featuretl._learning.metrics import metrics_report
from featuretl.report.findings import (
    class_scores,
    confident_mistakes,
    label_errors,
    near_duplicates,
)
from featuretl.report.probe import Curve, Probe, splits_of
from featuretl.report.subject import Subject

_RESIDUALS = 100  # nearly every regression prediction has one; the report lists the largest
_DRAWS = 5


@dataclass(eq=False, frozen=True)
class Examination:
    """The findings; the DataFrames are those that `featuretl.report.findings` returns."""

    subject: Subject
    metrics: Bunch  # from `metrics_report`
    mistakes: pd.DataFrame  # for regression the 100 largest residuals
    per_class: pd.DataFrame | None  # None for regression
    confusions: pd.DataFrame | None  # None for regression
    label_errors: pd.DataFrame | None  # None for regression, and without probabilities
    duplicates: pd.DataFrame  # pairs with `same_label`; pairs with different labels come first
    leaks: pd.DataFrame | None  # pairs of an image and a training image; None without the latter
    across_folds: int | None  # pairs in different folds; None unless scores are out-of-fold
    curve: Curve | None


def examine(
    subject: Subject, seed: int, threshold: float, n_bootstrap: int, progress: Callable[[str], Any]
) -> Examination:
    """Return the findings about a subject."""
    training = subject.training
    rows = np.flatnonzero(subject.scored)
    y, predicted = subject.y[rows], subject.predicted[rows]
    groups = subset(subject.groups, rows)
    progress("Scoring")
    metrics = metrics_report(
        y,
        predicted,
        subset(subject.proba, rows),
        task="regression" if subject.classes is None else "classification",
        labels=subject.classes,
        groups=groups,
        n_bootstrap=n_bootstrap,
        random_state=seed,
    )
    per_class = confusions = suspects = None
    if (classes := subject.classes) is not None:
        per_class = class_scores(y, predicted, classes, groups=groups)
        pairs = pd.DataFrame({"label": y, "prediction": predicted})[y != predicted]
        confusions = pairs.value_counts().reset_index(name="images")  # in descending order
        if subject.label_proba is not None:
            suspects = label_errors(subject.y, subject.label_proba, classes)
    progress("Looking for near-duplicates")
    duplicates = _duplicates(subject, threshold)
    leaks = near_duplicates(subject.X, training.X, threshold=threshold) if training else None
    progress("Computing the learning curve")
    return Examination(
        subject=subject,
        metrics=metrics,
        mistakes=_mistakes(subject, rows),
        per_class=per_class,
        confusions=confusions,
        label_errors=suspects,
        duplicates=duplicates,
        leaks=leaks,
        across_folds=_across_folds(subject, duplicates),
        curve=_curve(subject, seed),
    )


def facts_of(found: Examination) -> dict[str, Any]:
    """Return the findings as JSON, with names for positions and None for NaN."""
    subject = found.subject
    training_names = subject.training.names if subject.training is not None else []
    facts = {
        "task": found.metrics.task,
        "images": len(subject),
        "scored": found.metrics.n,
        "trained_on": subject.trained_on,
        "scores_are": subject.scores_are,
        "warnings": subject.warnings,
        "scores": found.metrics.scores,
        "intervals": found.metrics.intervals,
        "per_class": _records(found.per_class),
        "confusions": _records(found.confusions),
        "mistakes": _records(found.mistakes, index=subject.names),
        "label_errors": _records(found.label_errors, index=subject.names),
        "label_errors_by": subject.label_source,
        "near_duplicates": _records(found.duplicates, first=subject.names, second=subject.names),
        "near_duplicates_across_folds": found.across_folds,
        "leaks": _records(found.leaks, first=subject.names, second=training_names),
        "learning_curve": None,
        "failures": [{"path": f.name, "error": f.message} for f in subject.failures],
    }
    if (curve := found.curve) is not None:
        facts["learning_curve"] = {
            "sizes": curve.sizes,
            "score": curve.score_name,
            "mean": np.nanmean(curve.test, axis=1),
            "std": np.nanstd(curve.test, axis=1),
            "measured_on": curve.how,
        }
    return plain_json(facts)


def _mistakes(subject: Subject, rows: Array) -> pd.DataFrame:
    y, predicted = subject.y[rows], subject.predicted[rows]
    if subject.classes is not None and subject.proba is not None:
        found = confident_mistakes(y, subject.proba[rows], subject.classes)
        return found.assign(index=rows[found["index"].to_numpy(int)])
    frame = pd.DataFrame({"index": rows, "label": y, "prediction": predicted})
    if subject.classes is not None:
        return frame[y != predicted]
    frame["error"] = predicted - y
    return frame.sort_values("error", key=lambda e: -e.abs(), kind="stable")[:_RESIDUALS]


def _duplicates(subject: Subject, threshold: float) -> pd.DataFrame:
    pairs = near_duplicates(subject.X, threshold=threshold)
    first, second = pairs["first"].to_numpy(int), pairs["second"].to_numpy(int)
    pairs["same_label"] = subject.y[first] == subject.y[second]
    return pairs.sort_values(["same_label", "similarity"], ascending=[True, False], kind="stable")


def _across_folds(subject: Subject, pairs: pd.DataFrame) -> int | None:
    if subject.model is not None or subject.held_out is None:
        return None
    fold = subject.held_out.fold
    return int((fold[pairs["first"].to_numpy(int)] != fold[pairs["second"].to_numpy(int)]).sum())


def _curve(subject: Subject, seed: int) -> Curve | None:
    """Return the learning curve of the training images or of folds; None if it has no score."""
    X, y, groups = subject.X, subject.y, subject.groups
    if (training := subject.training) is not None:
        n, rows = len(training.X), subject.scored
        X, y = np.concatenate([training.X, X[rows]]), np.concatenate([training.y, y[rows]])
        splits, groups = [(np.arange(n), np.arange(n, len(X)))] * _DRAWS, None
        how = f"these images, over {_DRAWS} draws of training images"
    elif subject.held_out is not None:
        splits = list(splits_of(subject.held_out.fold))
        how = f"held-out images, over {len(splits)} folds"
    else:
        return None
    curve = Probe(X, y, subject.classes, groups).learning_curve(splits, how, seed)
    return curve if np.isfinite(curve.test).any() else None


def _records(frame: pd.DataFrame | None, **names: list[str]) -> list[dict[str, Any]] | None:
    """Return the rows of a DataFrame; `names` replace the positions in some columns."""
    if frame is None:
        return None
    named = frame.assign(**{column: [of[i] for i in frame[column]] for column, of in names.items()})
    return named.rename(columns={"index": "image"}).to_dict("records")
