"""Scores of embeddings: cross-validated heads, or LogME."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.validation import has_fit_parameter

from featuretl._core.types import Array
from featuretl._learning.rows import one_thread_pool
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.ridge import LinearProbeRegressor
from featuretl.ranking.scores import BackboneScore, log_me_score

METHODS = ("probe", "knn", "logme")


@dataclass(eq=False, frozen=True)
class FoldedTargets:
    """The targets of n images, with their folds and groups."""

    y: Array  # class codes (n,), or regression targets (n, n_outputs), float64
    fold: Array  # (n,), int: the fold that holds out the image, -1 for never
    groups: Array  # (n,), codes from 0

    @property
    def is_regression(self) -> bool:
        """Whether `y` holds regression targets."""
        return self.y.ndim == 2

    def subset(self, rows: Array) -> FoldedTargets:
        """Return the targets of `rows` (k,), with new codes of classes and groups."""
        y = self.y[rows]
        y = y if self.is_regression else np.unique(y, return_inverse=True)[1]
        groups = np.unique(self.groups[rows], return_inverse=True)[1]
        return FoldedTargets(y, self.fold[rows], groups)


def score_of(method: str, X: Array, targets: FoldedTargets) -> BackboneScore:
    """Return the score of embeddings X (n, d), float32, by one of `METHODS`."""
    if method in ("probe", "knn"):
        predicted = _cross_val_predict(method, X, targets)
        return _r2(targets, predicted) if targets.is_regression else _accuracy(targets, predicted)
    with one_thread_pool():  # more threads gain little, and slow down other work
        return log_me_score(X.astype(np.float64), targets.y)


def _cross_val_predict(method: str, X: Array, targets: FoldedTargets) -> Array:
    """Return the cross-validated predictions of a head, in the shape of `y`."""
    predicted = np.zeros_like(targets.y)
    for number in np.unique(targets.fold[targets.fold >= 0]):
        held = targets.fold == number
        y_train = targets.y[~held]
        if not targets.is_regression and len(np.unique(y_train)) < 2:  # in a small sample
            predicted[held] = y_train[0]
            continue
        head: Any = LinearProbeRegressor() if targets.is_regression else LinearProbeClassifier()
        if method == "knn":
            kind = KNeighborsRegressor if targets.is_regression else KNeighborsClassifier
            head = make_pipeline(Normalizer(), kind(min(5, len(y_train))))
        options = {"groups": targets.groups[~held]} if has_fit_parameter(head, "groups") else {}
        found = head.fit(X[~held], y_train, **options).predict(X[held])
        predicted[held] = found.reshape(predicted[held].shape)
    return predicted


def _accuracy(targets: FoldedTargets, predicted: Array) -> BackboneScore:
    held = targets.fold >= 0
    right = predicted == targets.y
    score = right[held].mean()
    return BackboneScore(float(score), np.where(held, right - score, 0.0) / held.sum())


def _r2(targets: FoldedTargets, predicted: Array) -> BackboneScore:
    """Return the mean R2 over the outputs; the R2 of a constant output is 0."""
    held = (targets.fold >= 0)[:, None]
    error = np.square(predicted - targets.y) * held
    spread = np.square(targets.y - targets.y.mean(axis=0, where=held)) * held
    total = spread.sum(axis=0)
    varies = total > 0
    left = np.where(varies, error.sum(axis=0) / np.where(varies, total, 1), 1.0)
    derivative = (left * spread - error) / np.where(varies, total, np.inf)
    return BackboneScore(float(1 - left.mean()), derivative.mean(axis=1))
