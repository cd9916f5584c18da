"""All findings of a report about its subject, as frames and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from featuretl._core.text import plain_json
from featuretl._core.types import Array
from featuretl._learning.metrics import metrics_report
from featuretl.report.findings import (
    class_scores,
    confident_mistakes,
    label_errors,
    near_duplicates,
)
from featuretl.report.probe import Curve, learning_curve, splits_of
from featuretl.report.subject import Subject

# Every regression prediction is a little wrong.
_RESIDUALS = 100
_DRAWS = 5


@dataclass(eq=False, frozen=True)
class Training:
    """The images that a model was trained on, given again: for leaks and the learning curve."""

    names: list[str]
    images: Sequence[Any]
    y: Array
    X: Array
    keys: Array


@dataclass(eq=False, frozen=True)
class Examination:
    """The findings; frames are as `featuretl.report.findings` returns them."""

    subject: Subject
    training: Training | None
    metrics: Bunch  # as `metrics_report`
    mistakes: pd.DataFrame  # for regression the 100 largest residuals
    per_class: pd.DataFrame | None  # None for regression
    confusions: pd.DataFrame | None  # None for regression
    label_errors: pd.DataFrame | None  # None for regression, and without probabilities
    duplicates: pd.DataFrame  # pairs with `same_label`, those of different labels first
    leaks: pd.DataFrame | None  # pairs of an image and one of training; None without the latter
    across_folds: int | None  # near-duplicates in different folds, where scores are out-of-fold
    curve: Curve | None


def examine(
    subject: Subject,
    training: Training | None,
    seed: int,
    threshold: float,
    n_bootstrap: int,
    progress: Callable[[str], Any],
) -> Examination:
    """Return the findings about a subject."""
    rows = np.flatnonzero(subject.scored)
    y, predicted = subject.y[rows], subject.predicted[rows]
    groups = None if subject.groups is None else subject.groups[rows]
    proba = None if subject.proba is None else subject.proba[rows]
    progress("Scoring")
    metrics = metrics_report(
        y,
        predicted,
        proba,
        task="regression" if subject.classes is None else "classification",
        labels=subject.classes,
        groups=groups,
        n_bootstrap=n_bootstrap,
        random_state=seed,
    )
    classes = subject.classes
    per_class = None if classes is None else class_scores(y, predicted, classes, groups=groups)
    suspects = None
    if classes is not None and subject.label_proba is not None:
        suspects = label_errors(subject.y, subject.label_proba, classes)
    progress("Looking for near-duplicates")
    duplicates = _duplicates(subject, threshold)
    leaks = None
    if training is not None:
        leaks = near_duplicates(subject.X, training.X, threshold=threshold)
    progress("Learning from ever more images")
    return Examination(
        subject=subject,
        training=training,
        metrics=metrics,
        mistakes=_mistakes(subject, rows),
        per_class=per_class,
        confusions=None if classes is None else _confusions(y, predicted),
        label_errors=suspects,
        duplicates=duplicates,
        leaks=leaks,
        across_folds=_across_folds(subject, duplicates),
        curve=_curve(subject, training, seed),
    )


def facts_of(found: Examination) -> dict[str, Any]:
    """Return the findings as JSON: names in the place of positions, None for NaN."""
    subject = found.subject
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
        "leaks": None,
        "learning_curve": None,
        "failures": [{"path": f.name, "error": f.message} for f in subject.failures],
    }
    if found.leaks is not None and found.training is not None:
        names = {"first": subject.names, "second": found.training.names}
        facts["leaks"] = _records(found.leaks, **names)
    if found.curve is not None:
        facts["learning_curve"] = {
            "sizes": found.curve.sizes,
            "score": found.curve.score_name,
            "mean": np.nanmean(found.curve.test, axis=1),
            "std": np.nanstd(found.curve.test, axis=1),
            "measured_on": found.curve.how,
        }
    json: dict[str, Any] = plain_json(facts)
    return json


def _mistakes(subject: Subject, rows: Array) -> pd.DataFrame:
    y, predicted = subject.y[rows], subject.predicted[rows]
    if subject.classes is not None and subject.proba is not None:
        found = confident_mistakes(y, subject.proba[rows], subject.classes)
        return found.assign(index=rows[found["index"].to_numpy(int)])
    if subject.classes is not None:
        wrong = np.flatnonzero(y != predicted)
        columns = {"index": rows[wrong], "label": y[wrong], "prediction": predicted[wrong]}
        return pd.DataFrame(columns)
    error = predicted - y
    order = np.argsort(-np.abs(error), kind="stable")[:_RESIDUALS]
    columns = {"index": rows[order], "label": y[order], "prediction": predicted[order]}
    return pd.DataFrame({**columns, "error": error[order]})


def _confusions(y: Array, predicted: Array) -> pd.DataFrame:
    """Return the number of images for each pair of true and other predicted class, in descending order."""
    frame = pd.DataFrame({"label": y, "prediction": predicted})
    counts = frame[frame["label"] != frame["prediction"]].value_counts().rename("images")
    return counts.reset_index()


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


def _curve(subject: Subject, training: Training | None, seed: int) -> Curve | None:
    """Return the learning curve: on folds, or from training images on the scored ones."""
    X, y, groups = subject.X, subject.y, subject.groups
    if training is not None:
        n, rows = len(training.X), subject.scored
        X, y = np.concatenate([training.X, X[rows]]), np.concatenate([training.y, y[rows]])
        splits, groups = [(np.arange(n), np.arange(n, len(X)))] * _DRAWS, None
        how = f"these images, over {_DRAWS} draws of training images"
    elif subject.held_out is not None:
        splits = list(splits_of(subject.held_out.fold))
        how = f"the other images, over {len(splits)} folds"
    else:
        return None
    return learning_curve(X, y, subject.classes, groups, splits, how, seed)


def _records(frame: pd.DataFrame | None, **names: list[str]) -> list[dict[str, Any]] | None:
    """Return a frame's rows, with names for the positions in some columns."""
    if frame is None:
        return None
    named = frame.assign(**{column: [of[i] for i in frame[column]] for column, of in names.items()})
    records: list[dict[str, Any]] = named.rename(columns={"index": "image"}).to_dict("records")
    return records
