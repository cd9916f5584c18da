"""The kinds of targets (classes, label sets, regression targets): their heads and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils import Bunch

from featuretl._core.types import Array
from featuretl._learning.labels import all_labels, all_numbers, is_label_sets
from featuretl._learning.targets import Targets, check_length, read_targets
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.nearest_mean import NearestMeanClassifier
from featuretl.heads.ridge import LinearProbeRegressor
from featuretl.heads.svm import SVMProbeClassifier

MOST_FOR_SVM = 4000  # with more images the RBF kernel is approximated, and choices are slow
_LEAST_PROBABILITY = 1e-7


class ClassTargets:
    """One class per image: codes `coded`, labels `y` (n,), images of the median class."""

    score_name, proportion = "accuracy", True
    fine_tuning = "FineTuneClassifier"  # the name, as importing the class imports PyTorch

    def __init__(self, targets: Targets) -> None:
        self.coded = targets
        self.y = self.coded.classes[self.coded.codes]
        self.per_class = int(np.median(np.bincount(self.coded.codes)))

    @staticmethod
    def head(strategy: str, n: int, foldable: bool, last: bool, seed: int) -> Any:
        """Return an unfitted head for n images, `foldable` or not; `last`: for prediction."""
        if strategy == "nearest-mean":
            return NearestMeanClassifier()
        C: Any = {"C": "cv"} if foldable else {}
        if strategy == "linear":
            return LinearProbeClassifier(**C, random_state=seed)
        kernel = "rbf" if n <= MOST_FOR_SVM else "linear"
        C = C or {"C": 1.0}
        return SVMProbeClassifier(
            **C, kernel=kernel, gamma="scale", calibrate=last and foldable, random_state=seed
        )

    def evaluate(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return scores (1 if correct, else 0) and log-losses (NaN if not `calibrated`) of `rows`."""
        scores = (model.predict(X) == self.y[rows]).astype(np.float64)
        losses = np.full(len(rows), np.nan)
        if calibrated:
            is_true = self.y[rows][:, None] == model.classes_
            likelihood = (model.predict_proba(X) * is_true).sum(axis=1, dtype=np.float64)
            losses = -np.log(np.maximum(likelihood, _LEAST_PROBABILITY))
        return scores, losses

    def evaluation_of(self, search: Bunch, rows: Array) -> tuple[Array, Array]:
        """Return the scores and losses of the best candidate of a fine-tuning search on `rows`."""
        return search.scores, np.minimum(search.losses, -np.log(_LEAST_PROBABILITY))


class MultiLabelTargets(ClassTargets):
    """Label sets `y`, (n,), or an indicator (n, n_labels), which `coded` has in any case."""

    score_name, proportion = "f1_samples", False

    def __init__(self, estimator: Any, y: Any, targets: Targets) -> None:
        if estimator.strategy != "linear":
            raise InputError(
                f"{type(estimator).__name__} compares strategies only for one class per image, "
                "but y has several labels per image; give strategy='linear', or use "
                "LinearProbeClassifier or FineTuneClassifier."
            )
        self.coded, self.per_class = targets, 0
        labels = all_labels(type(estimator).__name__, y)
        self.y = labels if is_label_sets(labels) else targets.codes

    def evaluate(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return each row's part of ``f1_score(average="samples", zero_division=1)``; no losses."""
        truth = self.coded.codes[rows]
        predicted = np.zeros_like(truth)  # labels absent from training are never predicted
        predicted[:, np.searchsorted(self.coded.classes, model.classes_)] = model.predict(X)
        both, either = (truth & predicted).sum(axis=1), (truth + predicted).sum(axis=1)
        scores = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
        return scores, np.full(len(rows), np.nan)


def classification_targets(estimator: Any, y: Any, n: int) -> ClassTargets:
    """Return `y` as classes, or as label sets if it is multi-label."""
    targets = read_targets(estimator, y, n)
    return MultiLabelTargets(estimator, y, targets) if targets.multilabel else ClassTargets(targets)


class RegressionTargets:
    """Regression targets `y`, float64 (n,) or (n, n_outputs); `coded` has a single class."""

    score_name, proportion = "r2", False
    fine_tuning = "FineTuneRegressor"
    per_class = 0

    def __init__(self, estimator: Any, y: Any, n: int) -> None:
        owner = type(estimator).__name__
        self.y = all_numbers(owner, y)
        check_length(n, "y", len(self.y))
        self.coded = Targets(np.zeros(1, int), np.zeros(n, int))
        self._variance = self._columns(self.y).var(axis=0)
        if not self._variance.all():
            raise InputError(f"y must vary for {owner}; got a constant: add images with others.")

    @staticmethod
    def head(strategy: str, n: int, foldable: bool, last: bool, seed: int) -> Any:
        """Return an unfitted head; only `strategy` is used."""
        if strategy == "linear":
            return LinearProbeRegressor()
        machine = make_pipeline(StandardScaler(), SVR(epsilon=0.05))
        return TransformedTargetRegressor(machine, transformer=StandardScaler())

    def evaluate(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return 1 - squared error / variance of each row; log-losses are NaN."""
        error = self._columns(model.predict(X)) - self._columns(self.y[rows])
        return 1 - (np.square(error) / self._variance).mean(axis=1), np.full(len(rows), np.nan)

    def evaluation_of(self, search: Bunch, rows: Array) -> tuple[Array, Array]:
        """Return the scores of the best candidate of a fine-tuning search on `rows`."""
        # The search standardises the targets of its own rows.
        scale = (self._columns(self.y[rows]).var(axis=0) / self._variance).mean()
        return 1 + search.scores * scale, np.full(len(search.scores), np.nan)

    @staticmethod
    def _columns(y: Any) -> Array:
        return np.asarray(y, np.float64).reshape(len(y), -1)


TransferTargets = ClassTargets | RegressionTargets
