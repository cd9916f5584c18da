"""Out-of-fold predictions and learning curve of a linear probe on embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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


@dataclass(eq=False, frozen=True)
class Probe:
    """A linear probe on embeddings X (n, d) and targets y (n,); `classes`: None for regression."""

    X: Array
    y: Array
    classes: Array | None
    groups: Array | None

    def out_of_fold(self, cv: int, seed: int) -> HeldOut:
        """Return out-of-fold predictions; raises InputError if images are too few for two folds."""
        n, classes = len(self.y), self.classes
        fold, how = self._folds(cv, seed)
        ok = fold >= 0
        if classes is None:
            predicted: Array = np.full(n, np.nan)
            for train, test in splits_of(fold):
                if len(train) < 2:
                    raise InputError("A fold needs two training images; got one: add images.")
                predicted[test] = self._fitted(train).predict(self.X[test])
            return HeldOut(predicted, None, ok, fold, how)
        proba = np.full((n, len(classes)), np.nan)
        for train, test in splits_of(fold):
            proba[test] = self._proba(train, test, classes)
        best = np.where(ok, np.nan_to_num(proba).argmax(axis=1), 0)
        return HeldOut(classes[best], proba, ok, fold, how)

    def learning_curve(self, splits: list[tuple[Array, Array]], how: str, seed: int) -> Curve:
        """Return the scores of probes trained on growing subsets of each split's training rows."""
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(train) for train, _ in splits]
        is_class = self.classes is not None
        kinds = pd.Series(self.y if is_class else np.zeros(len(self.y)))
        # The number of earlier rows of the same class; in regression, of all earlier rows.
        ranks = [kinds[order].groupby(kinds, sort=False).cumcount().to_numpy() for order in orders]
        # In classification, the median number of images per class.
        largest = int(min(kinds[order].value_counts().median() for order in orders))
        smallest = 1 if is_class else _SMALLEST_REGRESSION
        sizes = [size for size in _LADDER if smallest <= size < 0.8 * largest] + [largest]
        scores = np.empty((len(sizes), len(splits)))
        for j, (order, rank, (_, test)) in enumerate(zip(orders, ranks, splits, strict=True)):
            for i, size in enumerate(sizes):
                rows = order if size == largest else order[rank < size]
                scores[i, j] = self._score(rows, test)
        return Curve(np.array(sizes), scores, "accuracy" if is_class else "R2", how)

    def _fitted(self, rows: Array) -> LinearProbeClassifier | LinearProbeRegressor:
        X, y = self.X[rows], self.y[rows]
        if self.classes is not None:
            return LinearProbeClassifier().fit(X, y)
        with warnings.catch_warnings():
            # `_folds` reports the warning about few groups.
            warnings.simplefilter("ignore", FeatureTLWarning)
            return LinearProbeRegressor().fit(X, y, groups=subset(self.groups, rows))

    def _score(self, rows: Array, test: Array) -> float:
        """Return the score; NaN with fewer than two classes to train on, or rows for an R2."""
        is_class = self.classes is not None
        enough = len(np.unique(self.y[rows])) if is_class else min(len(rows), len(test))
        return self._fitted(rows).score(self.X[test], self.y[test]) if enough > 1 else np.nan

    def _proba(self, train: Array, test: Array, classes: Array) -> Array:
        """Return probabilities, float64 (k, n_classes); 0 for a class without training rows."""
        proba = np.zeros((len(test), len(classes)))
        known = np.unique(self.y[train])
        if len(known) < 2:
            proba[:, classes == known[0]] = 1
        else:
            head: Any = self._fitted(train)
            proba[:, np.searchsorted(classes, head.classes_)] = head.predict_proba(self.X[test])
        return proba

    def _folds(self, cv: int, seed: int) -> tuple[Array, str]:
        """Return the fold of each row, int (n,), and a description of the folds."""
        strata = np.zeros(len(self.y), int) if self.classes is None else self.y
        targets = Targets(*np.unique(strata, return_inverse=True))
        if self.classes is not None and len(targets.classes) < 2:
            raise InputError("Cross-validation needs images of at least two classes; got one.")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureTLWarning)
            fold = fold_of_rows(_OWNER, targets, self.groups, cv, seed)
        notes = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
        grouped = ", each group in one of them" if self.groups is not None else ""
        return fold, " ".join([f"{fold.max() + 1} folds{grouped}.", *notes])


def splits_of(fold: Array) -> Iterator[tuple[Array, Array]]:
    """Yield training and test rows of each fold."""
    for k in range(fold.max() + 1):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)
