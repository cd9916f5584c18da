"""The machines of SVMProbeClassifier: each searches C on folds, fits, and computes decisions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from sklearn.utils import Bunch

from featuretl._core.types import Array
from featuretl._learning.losses import squared_hinge
from featuretl._learning.responses import chosen_codes
from featuretl._learning.rows import Rows
from featuretl.heads._solver.path import Path, fold_means, search
from featuretl.heads._solver.problem import LinearProblem

_MAX_ITER = 1000
_EXACT_CS = (0.1, 1.0, 10.0, 100.0)


class TrainingSet(NamedTuple):
    """Rows, class numbers (n,), loss weights (n,), and the fold that holds each row out (n,)."""

    rows: Rows
    codes: Array
    n_classes: int
    weight: Array
    fold: Array

    def scores(self, values: Array) -> dict[str, Array]:
        """Return accuracies (n_folds,) of held-out values; "varies" breaks ties of machines."""
        chosen = chosen_codes(values)
        weight = self.weight * (self.fold >= 0)
        accuracy = fold_means(chosen == self.codes, self.fold, weight)
        varies = len(np.unique(chosen[weight > 0])) > 1
        return {"accuracy": accuracy, "varies": np.full_like(accuracy, varies)}

    def problem(self, rows: Rows) -> LinearProblem:
        """Return the one-vs-rest squared hinge problem on all of `rows`."""
        target = self.codes[:, None]
        if self.n_classes > 2:
            target = (target == np.arange(self.n_classes)).astype(np.uint8)
        weight = np.broadcast_to(self.weight[:, None], target.shape)
        return LinearProblem(rows, target, squared_hinge, target.shape[1], weight)


class Linear:
    """One-vs-rest squared hinge on standardised rows."""

    gamma = np.nan

    def __init__(self, tol: float) -> None:
        self._tol = tol

    def search(self, data: TrainingSet, Cs: Any) -> Bunch:
        """Return the path of C."""
        folds = data.problem(self._features(data.rows)).on_folds(data.fold)
        return search(folds, Cs, data.scores, "accuracy", self._tol, _MAX_ITER)

    def fit(self, data: TrainingSet, C: float) -> Linear:
        """Fit all rows; `coef` (columns, d) and `intercept` (columns,) are for raw rows."""
        rows = self._features(data.rows)
        problem = data.problem(rows).on_folds()
        x = problem.solve(C, problem.start(), self._tol, _MAX_ITER).x
        self.coef, self.intercept = (part.astype(rows.dtype) for part in problem.unscaled(x))
        return self

    def values(self, X: Array) -> Array:
        """Return decision values (rows, columns) of raw rows."""
        return X @ self.coef.T + self.intercept

    def _features(self, rows: Rows) -> Rows:
        return rows


class Nystrom(Linear):
    """The linear machine on Nystroem features of the RBF kernel."""

    def __init__(self, tol: float, gamma: float, n_components: int, seed: int) -> None:
        super().__init__(tol)
        self.gamma, self._n_components, self._seed = gamma, n_components, seed

    def values(self, X: Array) -> Array:
        """Return decision values (rows, columns) of raw rows."""
        features = np.asarray(self._map.transform((X - self._mean) / self._scale))
        return super().values(features.astype(self.coef.dtype))

    def _features(self, rows: Rows) -> Rows:
        self._mean, self._scale = rows.mean_, rows.scale_
        size = min(self._n_components, rows.n)
        landmarks = rows.sample(size, np.random.default_rng(self._seed))[0]
        self._map = Nystroem(
            gamma=self.gamma, n_components=len(landmarks), random_state=self._seed
        ).fit(landmarks)
        features = np.empty((rows.n, len(landmarks)), rows.dtype)

        def visit(where: slice, Z: Array) -> None:
            features[where] = self._map.transform(Z)

        rows.sweep(visit, size)
        return Rows(features, rows.weight, rows.workers, scaling=None)


class Exact:
    """scikit-learn's SVC on the kernel matrix of all rows."""

    def __init__(self, tol: float, gamma: float) -> None:
        self._tol, self.gamma = tol, gamma

    def search(self, data: TrainingSet, Cs: Any) -> Bunch:
        """Return the path of C."""
        Z = data.rows.sample(data.rows.n, np.random.default_rng(0))[0]
        kernel = rbf_kernel(Z, gamma=self.gamma).astype(np.float64)
        path = Path(data.scores, "accuracy")
        for C in sorted(_EXACT_CS if isinstance(Cs, str) else Cs):
            path.add(C, self._held_out(data, kernel, C))
        return path.result()

    def fit(self, data: TrainingSet, C: float) -> Exact:
        """Fit the rows of weight > 0; libsvm would drop others and shift its support indices."""
        weighed = np.flatnonzero(data.weight > 0)
        Z = data.rows.sample(data.rows.n, np.random.default_rng(0))[0][weighed]
        self._svc = self._fitted(data, rbf_kernel(Z, gamma=self.gamma), C, weighed)
        self._rows, self._mean, self._scale = Z, data.rows.mean_, data.rows.scale_
        return self

    def values(self, X: Array) -> Array:
        """Return decision values (rows, columns) of raw rows."""
        kernel = rbf_kernel((X - self._mean) / self._scale, self._rows, gamma=self.gamma)
        return self._svc.decision_function(kernel).reshape(len(X), -1)

    def _held_out(self, data: TrainingSet, kernel: Array, C: float) -> Array:
        columns = 1 if data.n_classes == 2 else data.n_classes
        # A class that is missing from a fold's training rows must never win there.
        values = np.full((len(kernel), columns), -np.inf if columns > 1 else 0.0)
        for number in range(data.fold.max() + 1):
            train = np.flatnonzero((data.fold != number) & (data.weight > 0))
            test = np.flatnonzero(data.fold == number)
            svc = self._fitted(data, kernel[np.ix_(train, train)], C, train)
            decided = svc.decision_function(kernel[np.ix_(test, train)]).reshape(len(test), -1)
            if columns > 1 and decided.shape[1] == 1:
                decided = np.hstack([-decided, decided])
            values[np.ix_(test, np.arange(1) if columns == 1 else svc.classes_)] = decided
        return np.maximum(values, -1e6)

    def _fitted(self, data: TrainingSet, kernel: Array, C: float, rows: Array) -> SVC:
        svc = SVC(C=C, kernel="precomputed", tol=10 * self._tol)
        return svc.fit(kernel, data.codes[rows], sample_weight=data.weight[rows])
