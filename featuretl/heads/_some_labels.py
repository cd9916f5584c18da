"""What heads share that learn from rows of which only some have a label."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows, judges
from featuretl._learning.labels import some_labels
from featuretl._learning.responses import Responses
from featuretl._learning.targets import Targets, check_length, read_matrix, read_targets
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier


class PredictsByProbe(Responses):
    """Predictions of `probe_`, a fitted `LinearProbeClassifier`."""

    probe_: LinearProbeClassifier

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        return self.probe_._logits(read_matrix(self, X, reset=False))


def read_some_targets(estimator: Any, y: Any, n: int) -> tuple[Array, Targets]:
    """Return the rows (l,) that have a label, and their targets."""
    owner = type(estimator).__name__
    labels, is_known = some_labels(owner, y, minus_one=True)
    check_length(n, "y", len(is_known))
    known = np.flatnonzero(is_known)
    if not len(known):
        raise InputError(f"y of {owner} must have labels; got none.")
    targets = read_targets(estimator, labels, len(known))
    if targets.multilabel:
        raise InputError(f"{owner} needs one class per row; got multi-label y.")
    return known, targets


def folds_of_labels(
    owner: str, X: Array, targets: Targets, groups: Array | None, cv: Any, seed: Any
) -> Array:
    """Return the fold of each labelled row; -1 for all where none can judge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatureTLWarning)  # few labels are what this is for
        try:
            fold = fold_of_rows(owner, targets, groups, cv, seed, X=X)[0]
        except InputError:
            return np.full(len(targets.codes), -1)
    return fold if judges(targets, fold) else np.full_like(fold, -1)
