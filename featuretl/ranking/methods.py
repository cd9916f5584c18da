"""What embeddings are judged by: a head on held-out images, or a score without one."""

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
from featuretl.ranking.scores import Estimate, estimate_log_me

METHODS = ("probe", "knn", "logme")

_NEIGHBOURS = 5


@dataclass(eq=False, frozen=True)
class Task:
    """What is to be learnt, and which images are held out when.

    Attributes
    ----------
    y : ndarray
        Class numbers (n,), or numbers (n, n_outputs), float64.
    fold : ndarray of shape (n,), int
        The fold in which each image is held out; -1 for never.
    groups : ndarray of shape (n,), int
        Numbers of groups, each image its own where there are none.
    """

    y: Array
    fold: Array
    groups: Array

    @property
    def is_regression(self) -> bool:
        """Whether `y` holds numbers."""
        return self.y.ndim == 2

    def taken(self, rows: Array) -> Task:
        """Return the task of the images at `rows` (k,): their classes and groups numbered anew."""
        y = self.y[rows]
        y = y if self.is_regression else np.unique(y, return_inverse=True)[1]
        groups = np.unique(self.groups[rows], return_inverse=True)[1]
        return Task(y, self.fold[rows], groups)


def estimate(method: str, X: Array, task: Task) -> Estimate:
    """Judge embeddings X (n, d), float32, by one of `METHODS`."""
    if method in ("probe", "knn"):
        predicted = _held_out(method, X, task)
        return _r2(task, predicted) if task.is_regression else _accuracy(task, predicted)
    with one_thread_pool():  # several threads gain little here, and lose much beside other work
        return estimate_log_me(X.astype(np.float64), task.y)


def _held_out(method: str, X: Array, task: Task) -> Array:
    """Return for each image what a head predicts that has not seen its fold: of the shape of `y`."""
    predicted = np.zeros_like(task.y)
    for number in np.unique(task.fold[task.fold >= 0]):
        held = task.fold == number
        learnt = task.y[~held]
        if not task.is_regression and len(np.unique(learnt)) < 2:  # of a sample that is small
            predicted[held] = learnt[0]
            continue
        head = _head(method, task.is_regression, len(learnt))
        options = {"groups": task.groups[~held]} if has_fit_parameter(head, "groups") else {}
        found = head.fit(X[~held], learnt, **options).predict(X[held])
        predicted[held] = found.reshape(predicted[held].shape)
    return predicted


def _head(method: str, is_regression: bool, n: int) -> Any:
    """Return what is to learn from n images."""
    if method == "probe":
        return LinearProbeRegressor() if is_regression else LinearProbeClassifier()
    neighbours = KNeighborsRegressor if is_regression else KNeighborsClassifier
    return make_pipeline(Normalizer(), neighbours(min(_NEIGHBOURS, n)))


def _accuracy(task: Task, predicted: Array) -> Estimate:
    held = task.fold >= 0
    right = predicted == task.y
    score = right[held].mean()
    return Estimate(float(score), np.where(held, right - score, 0.0) / held.sum())


def _r2(task: Task, predicted: Array) -> Estimate:
    """Return the mean of the outputs' R2; that of an output that is constant is 0."""
    held = (task.fold >= 0)[:, None]
    error = np.square(predicted - task.y) * held
    spread = np.square(task.y - task.y.mean(axis=0, where=held)) * held
    total = spread.sum(axis=0)
    varies = total > 0
    left = np.where(varies, error.sum(axis=0) / np.where(varies, total, 1), 1.0)
    derivative = (left * spread - error) / np.where(varies, total, np.inf)
    return Estimate(float(1 - left.mean()), derivative.mean(axis=1))
