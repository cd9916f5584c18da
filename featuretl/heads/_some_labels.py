"""What heads share that learn from rows of which only some have a label."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads._folds import fold_of_rows, judges
from featuretl.heads._responses import Responses
from featuretl.heads._targets import Targets, check_length, read_matrix, read_targets
from featuretl.heads.linear import LinearProbeClassifier

Array = np.ndarray[Any, Any]


class PredictsByProbe(Responses):
    """Predictions of `probe_`, a fitted `LinearProbeClassifier`."""

    probe_: LinearProbeClassifier

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        return self.probe_._logits(read_matrix(self, X, reset=False))


def read_labels(estimator: Any, y: Any, n: int) -> tuple[Array, Targets]:
    """Return the rows (l,) that have a label, and their targets."""
    if y is None:
        read_targets(estimator, y, n)  # says what is missing
    y = column_or_1d(y, warn=True)
    check_length(n, "y", len(y))
    missing = np.asarray(pd.isna(y))
    if y.dtype.kind in "OUT":
        missing |= np.array([isinstance(v, str) and v == "" for v in y.tolist()], bool)
    if y.dtype.kind in "Oif":
        missing |= np.asarray(y == -1, bool)
    known = np.flatnonzero(~missing)
    if not len(known):
        raise InputError(f"y of {type(estimator).__name__} must have labels; got none.")
    labels = y[known]
    return known, read_targets(
        estimator, labels.tolist() if y.dtype == object else labels, len(known)
    )


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
