"""Out-of-fold predictions and learning curve of a linear probe on embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows
from featuretl._learning.groups import subset
from featuretl._learning.targets import Targets
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.ridge import LinearProbeRegressor

_OWNER = "write_report"
_LADDER = [step * 10**power for power in range(6) for step in (1, 2, 5)]
_SMALLEST_REGRESSION = 10


@dataclass(eq=False, frozen=True)
class HeldOut:
    """Out-of-fold predictions of n images."""

    predicted: Array  # (n,), valid where `ok` is True
    proba: Array | None  # float64 (n, n_classes), NaN where `ok` is False; None for regression
    ok: Array  # bool (n,): whether the image is in a test fold
    fold: Array  # int (n,); -1 for images that are in no test fold
    how: str  # description of the folds


@dataclass(eq=False, frozen=True)
class Curve:
    """Learning curve: `sizes`, int (m,), and `test`, the scores, float64 (m, repeats)."""

    sizes: Array
    test: Array
    score_name: str
    how: str


def out_of_fold(
    X: Array, y: Array, classes: Array | None, groups: Array | None, cv: int, seed: int
) -> HeldOut:
    """Return out-of-fold predictions of a linear probe.

    Raises InputError without two folds, or two training images per fold of a regression.
    """
    fold, how = _folds(y, classes, groups, cv, seed)
    ok = fold >= 0
    if classes is None:
        predicted: Array = np.full(len(y), np.nan)
        for train, test in splits_of(fold):
            if len(train) < 2:
                raise InputError("A fold needs at least two training images; got one: add images.")
            predicted[test] = _regressor(X, y, groups, train).predict(X[test])
        return HeldOut(predicted, None, ok, fold, how)
    proba = np.full((len(y), len(classes)), np.nan)
    for train, test in splits_of(fold):
        proba[test] = _proba(X[train], y[train], X[test], classes)
    best = np.where(ok, np.nan_to_num(proba).argmax(axis=1), 0)
    return HeldOut(classes[best], proba, ok, fold, how)


def learning_curve(
    X: Array,
    y: Array,
    classes: Array | None,
    groups: Array | None,
    splits: list[tuple[Array, Array]],
    how: str,
    seed: int,
) -> Curve:
    """Return scores of linear probes trained on growing subsets of each split's training rows.

    A score is NaN with fewer than two training rows, classes to train on, or rows for an R2.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(train) for train, _ in splits]
    kinds = pd.Series(y if classes is not None else np.zeros(len(y)))
    # The number of earlier rows of the same class; in regression, of all earlier rows.
    ranks = [kinds[order].groupby(kinds, sort=False).cumcount().to_numpy() for order in orders]
    largest = min(map(len, orders))
    if classes is not None:  # the median number of images per class
        largest = int(min(np.median(np.unique(y[o], return_counts=True)[1]) for o in orders))
    smallest = 1 if classes is not None else _SMALLEST_REGRESSION
    sizes = [size for size in _LADDER if smallest <= size < 0.8 * largest] + [largest]
    scores = np.empty((len(sizes), len(splits)))
    for j, (order, rank, (_, test)) in enumerate(zip(orders, ranks, splits, strict=True)):
        for i, size in enumerate(sizes):
            rows = order if size == largest else order[rank < size]
            scores[i, j] = _score(X, y, classes, groups, rows, test)
    name = "R2" if classes is None else "accuracy"
    return Curve(np.array(sizes), scores, name, how)


def _score(
    X: Array, y: Array, classes: Array | None, groups: Array | None, rows: Array, test: Array
) -> float:
    if classes is None:
        if min(len(rows), len(test)) < 2:
            return np.nan
        return _regressor(X, y, groups, rows).score(X[test], y[test])
    if len(np.unique(y[rows])) < 2:
        return np.nan
    head = LinearProbeClassifier().fit(X[rows], y[rows])
    return float((head.predict(X[test]) == y[test]).mean())


def _proba(X: Array, y: Array, test_X: Array, classes: Array) -> Array:
    """Return probabilities, float64 (k, n_classes); 0 for a class without training rows."""
    proba = np.zeros((len(test_X), len(classes)))
    known = np.unique(y)
    if len(known) < 2:
        proba[:, classes == known[0]] = 1
        return proba
    head = LinearProbeClassifier().fit(X, y)
    proba[:, np.searchsorted(classes, head.classes_)] = head.predict_proba(test_X)
    return proba


def _regressor(X: Array, y: Array, groups: Array | None, rows: Array) -> LinearProbeRegressor:
    with warnings.catch_warnings():
        # `_folds` reports the warning about few groups.
        warnings.simplefilter("ignore", FeatureTLWarning)
        return LinearProbeRegressor().fit(X[rows], y[rows], groups=subset(groups, rows))


def splits_of(fold: Array) -> Iterator[tuple[Array, Array]]:
    """Yield training and test rows of each fold."""
    for k in range(fold.max() + 1):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def _folds(
    y: Array, classes: Array | None, groups: Array | None, cv: int, seed: int
) -> tuple[Array, str]:
    """Return the fold of each row, int (n,), and a description of the folds."""
    strata = np.zeros(len(y), int) if classes is None else y
    targets = Targets(*np.unique(strata, return_inverse=True))
    if classes is not None and len(targets.classes) < 2:
        raise InputError("Cross-validation needs images of at least two classes; got one.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FeatureTLWarning)
        fold, n_folds = fold_of_rows(_OWNER, targets, groups, cv, seed)
    notes = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
    grouped = ", each group in one of them" if groups is not None else ""
    return fold, " ".join([f"{n_folds} folds{grouped}.", *notes])
