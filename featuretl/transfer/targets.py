"""Targets of a transfer task: classes, label sets or numbers, their heads, and the score of an image."""

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
from featuretl.finetune.classifier import FineTuneClassifier
from featuretl.finetune.regressor import FineTuneRegressor
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.nearest_mean import NearestMeanClassifier
from featuretl.heads.ridge import LinearProbeRegressor
from featuretl.heads.svm import SVMProbeClassifier

# From this number of images on, an RBF machine is approximated, and slow to choose.
MOST_FOR_SVM = 4000
_LEAST_PROBABILITY = 1e-7


class ClassTargets:
    """One class per image.

    Attributes
    ----------
    coded : Targets
        Classes and codes.
    y : ndarray of shape (n,)
        The labels.
    per_class : int
        Images of the median class.
    """

    score_name, proportion = "accuracy", True
    fine_tune = FineTuneClassifier

    def __init__(self, targets: Targets) -> None:
        self.coded = targets
        self.y = self.coded.classes[self.coded.codes]
        self.per_class = int(np.median(np.bincount(self.coded.codes)))

    @staticmethod
    def head(strategy: str, n: int, foldable: bool, last: bool, seed: int) -> Any:
        """Return an unfitted head for n images.

        `foldable` says whether images can be held out, `last` whether the head will predict.
        """
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

    def judge(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return 1 for each of `rows` that is predicted right, and log-losses (NaN if uncalibrated)."""
        scores = (model.predict(X) == self.y[rows]).astype(np.float64)
        losses = np.full(len(rows), np.nan)
        if calibrated:
            proba = model.predict_proba(X)
            known = np.isin(self.y[rows], model.classes_)
            column = np.searchsorted(model.classes_, self.y[rows][known])
            likelihood = np.zeros(len(rows))
            likelihood[known] = proba[known, column]
            losses = -np.log(np.maximum(likelihood, _LEAST_PROBABILITY))
        return scores, losses

    def judged_by(self, search: Bunch, rows: Array) -> tuple[Array, Array]:
        """Return scores and losses of a fine-tuned network that a search on `rows` found."""
        return search.scores, np.minimum(search.losses, -np.log(_LEAST_PROBABILITY))


class MultiLabelTargets(ClassTargets):
    """Several labels per image; the score is the F1 of its labels, averaged over images.

    An image without labels for which none is predicted counts 1. This is scikit-learn's
    ``f1_score(average="samples", zero_division=1)``.

    Attributes
    ----------
    coded : Targets
        Labels, and 0 or 1 for each image and label.
    y : ndarray of shape (n,) of sets, or (n, n_labels) of 0 and 1
    """

    score_name, proportion = "f1_samples", False

    def __init__(self, estimator: Any, y: Any, targets: Targets) -> None:
        if estimator.strategy != "linear":
            raise InputError(
                f"{type(estimator).__name__} chooses between strategies for one class per image, "
                "but y has several labels per image; give strategy='linear', or use "
                "LinearProbeClassifier or FineTuneClassifier."
            )
        self.coded, self.per_class = targets, 0
        labels = all_labels(type(estimator).__name__, y)
        self.y = labels if is_label_sets(labels) else targets.codes

    def judge(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return the F1 of each of `rows`; log-losses are not compared."""
        truth = self.coded.codes[rows]
        predicted = np.zeros_like(truth)  # a label absent from training is never predicted
        predicted[:, np.searchsorted(self.coded.classes, model.classes_)] = model.predict(X)
        both, either = (truth & predicted).sum(axis=1), (truth + predicted).sum(axis=1)
        scores = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
        return scores, np.full(len(rows), np.nan)


def classification_targets(estimator: Any, y: Any, n: int) -> ClassTargets:
    """Return `y` as classes or, if it has several labels per image, as label sets."""
    targets = read_targets(estimator, y, n)
    return MultiLabelTargets(estimator, y, targets) if targets.multilabel else ClassTargets(targets)


class RegressionTargets:
    """One or more numbers per image; the score is the fraction of their variance that is explained.

    Attributes
    ----------
    coded : Targets
        All of one class.
    y : ndarray of shape (n,) or (n, n_outputs), float64
    """

    score_name, proportion = "r2", False
    fine_tune = FineTuneRegressor
    per_class = 0

    def __init__(self, estimator: Any, y: Any, n: int) -> None:
        owner = type(estimator).__name__
        self.y = all_numbers(owner, y)
        check_length(n, "y", len(self.y))
        self.coded = Targets(np.zeros(1, int), np.zeros(n, int))
        self._variance = self._columns(self.y).var(axis=0)
        if not self._variance.all():
            raise InputError(f"y must vary for {owner}; got one number only.")

    @staticmethod
    def head(strategy: str, n: int, foldable: bool, last: bool, seed: int) -> Any:
        """Return an unfitted head; only the strategy matters here."""
        if strategy == "linear":
            return LinearProbeRegressor()
        machine = make_pipeline(StandardScaler(), SVR(epsilon=0.05))
        return TransformedTargetRegressor(machine, transformer=StandardScaler())

    def judge(self, model: Any, X: Any, rows: Array, calibrated: bool) -> tuple[Array, Array]:
        """Return 1 - squared error / variance for each of `rows`; there is no other loss."""
        error = self._columns(model.predict(X)) - self._columns(self.y[rows])
        return 1 - (np.square(error) / self._variance).mean(axis=1), np.full(len(rows), np.nan)

    def judged_by(self, search: Bunch, rows: Array) -> tuple[Array, Array]:
        """Return the scores of a fine-tuned network that a search on `rows` found."""
        # The search standardises by the targets of its own rows.
        scale = (self._columns(self.y[rows]).var(axis=0) / self._variance).mean()
        return 1 + search.scores * scale, np.full(len(search.scores), np.nan)

    @staticmethod
    def _columns(y: Any) -> Array:
        return np.asarray(y, np.float64).reshape(len(y), -1)


TransferTargets = ClassTargets | RegressionTargets
