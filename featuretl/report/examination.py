"""All that a report finds about its subject, as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from featuretl._core.types import Array
from featuretl._learning.metrics import metrics_report
from featuretl.report.findings import (
    class_scores,
    confident_mistakes,
    label_errors,
    near_duplicates,
)
from featuretl.report.probe import Curve, learning_curve, learning_curve_on
from featuretl.report.subject import Subject

# Every number is a little wrong.
_RESIDUALS = 100


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
    """What was found; frames are as `featuretl.report.findings` returns them.

    Attributes
    ----------
    metrics : Bunch
        As `metrics_report`.
    mistakes : DataFrame
        Of numbers the 100 largest residuals: `index`, `label`, `prediction`, `error`.
    per_class, confusions, label_errors : DataFrame, or None
        None for numbers, or where nothing is known.
    duplicates : DataFrame
        Pairs of these images, with `same_label`, those of different labels first.
    leaks : DataFrame or None
        Pairs of one of these images and one of training; None without the latter.
    across_folds : int or None
        How many of the near-duplicates lie in different folds of scores that are out-of-fold.
    curve : Curve or None
    """

    subject: Subject
    training: Training | None
    metrics: Bunch
    mistakes: pd.DataFrame
    per_class: pd.DataFrame | None
    confusions: pd.DataFrame | None
    label_errors: pd.DataFrame | None
    duplicates: pd.DataFrame
    leaks: pd.DataFrame | None
    across_folds: int | None
    curve: Curve | None


def examine(
    subject: Subject,
    training: Training | None,
    seed: int,
    threshold: float,
    n_bootstrap: int,
    progress: Callable[[str], Any],
) -> Examination:
    """Return what there is to find."""
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
    """Return all of it as JSON: names in the place of positions, None for NaN."""
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
    plain: dict[str, Any] = _plain(facts)
    return plain


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
    """Return how often which class was taken for which other, most often first."""
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
    if training is not None:
        rows = subject.scored
        own = training.X, training.y
        return learning_curve_on(*own, subject.X[rows], subject.y[rows], subject.classes, seed)
    if subject.held_out is None:
        return None
    of = subject.X, subject.y, subject.classes, subject.groups
    return learning_curve(*of, subject.held_out.fold, seed)


def _records(frame: pd.DataFrame | None, **names: list[str]) -> list[dict[str, Any]] | None:
    """Return a frame's rows, with names for the positions in some columns."""
    if frame is None:
        return None
    named = frame.assign(**{column: [of[i] for i in frame[column]] for column, of in names.items()})
    records: list[dict[str, Any]] = named.rename(columns={"index": "image"}).to_dict("records")
    return records


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
