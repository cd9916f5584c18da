"""A linear probe's held-out predictions of labelled embeddings, and its learning curve."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import r2_score

from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows
from featuretl._learning.targets import Targets
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.ridge import LinearProbeRegressor

_OWNER = "write_report"
_LADDER = [step * 10**power for power in range(6) for step in (1, 2, 5)]
# A regression needs more than a handful.
_FEWEST_NUMBERS = 10


@dataclass(eq=False, frozen=True)
class HeldOut:
    """Predictions of n images by probes that did not see them."""

    predicted: Array  # (n,), valid where `ok`
    proba: Array | None  # (n, n_classes), float64, NaN where not `ok`; None for regression
    ok: Array  # (n,), bool: which images were held out
    fold: Array  # (n,), int; -1 for never
    how: str


@dataclass(eq=False, frozen=True)
class Curve:
    """Scores against training images: `sizes` (m,), `train` and `test` (m, repeats)."""

    sizes: Array
    train: Array
    test: Array
    score_name: str
    how: str


def out_of_fold(
    X: Array, y: Array, classes: Array | None, groups: Array | None, cv: int, seed: int
) -> HeldOut:
    """Return out-of-fold predictions of a linear probe. Raises InputError if no two folds can be made."""
    fold, how = _folds(y, classes, groups, cv, seed)
    ok = fold >= 0
    if classes is None:
        predicted: Array = np.full(len(y), np.nan)
        for train, test in splits_of(fold):
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
    """Return the scores of linear probes trained on ever more of the training rows of each split."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(train) for train, _ in splits]
    ranks = [_rank(y[order], classes) for order in orders]
    largest = int(min(_usual(rank, y[o], classes) for rank, o in zip(ranks, orders, strict=True)))
    least = 1 if classes is not None else _FEWEST_NUMBERS
    sizes = [size for size in _LADDER if least <= size < 0.8 * largest] + [largest]
    scores = np.empty((2, len(sizes), len(splits)))
    for j, (order, rank, (_, test)) in enumerate(zip(orders, ranks, splits, strict=True)):
        for i, size in enumerate(sizes):
            rows = order if size == largest else order[rank < size]
            scores[:, i, j] = _score(X, y, classes, groups, rows, [rows, test])
    name = "R2" if classes is None else "accuracy"
    return Curve(np.array(sizes), scores[0], scores[1], name, how)


def _rank(y: Array, classes: Array | None) -> Array:
    """Return the number of rows of the same class before each row; of all rows for numbers."""
    rank = np.arange(len(y))
    for name in () if classes is None else classes:
        same = y == name
        rank[same] = np.arange(same.sum())
    return rank


def _usual(rank: Array, y: Array, classes: Array | None) -> float:
    """Return the median number of images of a class; of all images for numbers."""
    return len(y) if classes is None else float(np.median(np.unique(y, return_counts=True)[1]))


def _score(
    X: Array,
    y: Array,
    classes: Array | None,
    groups: Array | None,
    rows: Array,
    on: list[Array],
) -> list[float]:
    if classes is None:
        head = _regressor(X, y, groups, rows)
        return [r2_score(y[part], head.predict(X[part])) for part in on]
    if len(np.unique(y[rows])) < 2:
        return [np.nan for _ in on]
    head = LinearProbeClassifier().fit(X[rows], y[rows])
    return [float((head.predict(X[part]) == y[part]).mean()) for part in on]


def _proba(X: Array, y: Array, test_X: Array, classes: Array) -> Array:
    """Return probabilities (k, n_classes); 0 for a class that has no training row."""
    proba = np.zeros((len(test_X), len(classes)))
    known = np.unique(y)
    if len(known) < 2:
        proba[:, classes == known[0]] = 1
        return proba
    head = LinearProbeClassifier().fit(X, y)
    proba[:, np.searchsorted(classes, head.classes_)] = head.predict_proba(test_X)
    return proba


def _regressor(X: Array, y: Array, groups: Array | None, rows: Array) -> LinearProbeRegressor:
    of_rows = None if groups is None else groups[rows]
    with warnings.catch_warnings():
        # The warning about few groups comes where folds are made.
        warnings.simplefilter("ignore", FeatureTLWarning)
        return LinearProbeRegressor().fit(X[rows], y[rows], groups=of_rows)


def splits_of(fold: Array) -> Iterator[tuple[Array, Array]]:
    """Yield training and test rows of each fold."""
    for k in range(fold.max() + 1):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


def _folds(
    y: Array, classes: Array | None, groups: Array | None, cv: int, seed: int
) -> tuple[Array, str]:
    """Return the fold of each row, and how they were made, in words."""
    strata = np.zeros(len(y), int) if classes is None else y
    targets = Targets(*np.unique(strata, return_inverse=True))  # a class may have no image here
    if classes is not None and len(targets.classes) < 2:
        raise InputError("Images of two classes at least are needed to hold any out; got one.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FeatureTLWarning)
        fold, n_folds = fold_of_rows(_OWNER, targets, groups, cv, seed)
    why = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
    kept = ", no group in two of them" if groups is not None else ""
    return fold, " ".join([f"{n_folds} folds{kept}.", *why])
