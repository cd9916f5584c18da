"""A linear probe that labels for itself the rows that it is sure of, as many of every class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from featuretl._validation import check_int, parameter_error
from featuretl.heads._folds import check_folds
from featuretl.heads._groups import read_groups
from featuretl.heads._some_labels import PredictsByProbe, folds_of_labels, read_labels
from featuretl.heads._targets import Targets, is_positive, read_matrix
from featuretl.heads.linear import LinearProbeClassifier

Array = np.ndarray[Any, Any]

_UNTESTED = 0.9  # how sure, where no label can be held out
_GROWTH = 3


class SelfTrainingProbeClassifier(PredictsByProbe, BaseEstimator):
    """Self-training with class balance and a calibrated threshold, around a linear probe.

    A `LinearProbeClassifier` of the labelled rows predicts the others. Of those that it is sure of
    it takes on the surest, as many of every class, learns them with its labels, and predicts
    again. How sure is sure enough is found on out-of-fold predictions of the labelled rows: as sure
    as those of which a share of `precision` is right.

    Parameters
    ----------
    C : float > 0, default=0.03
        Inverse strength of the penalty, as in `LinearProbeClassifier`.
    precision : float in (0, 1], default=0.9
        Share of right labels among out-of-fold predictions above the threshold.
    rounds : int >= 1, default=5
        How often labels are taken on, anew each time.
    cv : int >= 2, splitter or iterable of (train, test), default=5
        Folds of the labelled rows; as many as the rows of the smallest class that has more than one.
    random_state : int, RandomState or None, default=None
        Shuffles the labelled rows into folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    probe_ : LinearProbeClassifier
        The head; its `coef_` and `intercept_` are for X as given.
    threshold_ : float
        The least probability of a label that is taken on; 0.9 where no label could be held out, inf
        where no threshold is precise enough.
    taken_ : ndarray of shape (n,), bool
        Rows without a label that the probe has learnt.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has names.

    See Also
    --------
    SemiSupervisedProbeClassifier : For one or two labels per class.
    sklearn.semi_supervised.SelfTrainingClassifier : Around any classifier; a threshold that is given,
        and no balance, which cost accuracy where labels are few.

    Notes
    -----
    What it gains, and what else was tried, is in ``benchmarks/labelling.py unlabelled``.

    References
    ----------
    Zou, Yu, Kumar and Wang, Unsupervised Domain Adaptation for Semantic Segmentation via
    Class-Balanced Self-Training, 2018 (the balance).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> known = y.copy()
    >>> known[100:] = -1
    >>> head = SelfTrainingProbeClassifier(random_state=0).fit(X, known)
    >>> alone = LinearProbeClassifier().fit(X[:100], y[:100])
    >>> head.score(X[100:], y[100:]) > alone.score(X[100:], y[100:]) + 0.02
    True
    """

    def __init__(
        self,
        C: float = 0.03,
        *,
        precision: float = 0.9,
        rounds: int = 5,
        cv: Any = 5,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.precision = precision
        self.rounds = rounds
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> SelfTrainingProbeClassifier:
        """Fit the head.

        Parameters
        ----------
        X : array-like of shape (n, d), float16, float32 or float64
            Embeddings, with and without a label; finite.
        y : array-like of shape (n,)
            At least two classes. -1, None, NaN and "" stand for no label.
        groups : array-like of shape (n,), default=None
            Labelled rows of one group are held out together.

        Returns
        -------
        SelfTrainingProbeClassifier
            The fitted estimator.

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If X has NaN, the labels are of a single class, or lengths differ.
        """
        self._check_parameters()
        X = read_matrix(self, X)
        known, targets = read_labels(self, y, len(X))
        groups = read_groups(type(self).__name__, groups, len(X))
        groups = None if groups is None else groups[known]
        self.classes_ = targets.classes
        codes, is_known = np.zeros(len(X), int), np.zeros(len(X), bool)
        codes[known], is_known[known] = targets.codes, True
        self.threshold_ = self._threshold(X[known], targets, groups)
        self.taken_ = np.zeros(len(X), bool)
        self.probe_ = self._probe(X[known], targets.codes)
        for _ in range(self.rounds if not is_known.all() else 0):
            proba = self.probe_.predict_proba(X)
            taken = _surest(np.where(is_known[:, None], 0, proba), self.threshold_)
            if np.array_equal(taken, self.taken_) and (codes == proba.argmax(1))[taken].all():
                break
            self.taken_ = taken
            codes[~is_known] = proba.argmax(axis=1)[~is_known]
            rows = is_known | taken
            self.probe_ = self._probe(X[rows], codes[rows])
        return self

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        if not is_positive(self.C):
            raise parameter_error(owner, "C", "a number > 0", self.C)
        if not is_positive(self.precision) or self.precision > 1:
            raise parameter_error(owner, "precision", "a number in (0, 1]", self.precision)
        check_int(owner, "rounds", self.rounds, 1)
        check_folds(owner, self.cv)

    def _probe(self, X: Array, codes: Array) -> LinearProbeClassifier:
        return LinearProbeClassifier(self.C).fit(X, self.classes_[codes])

    def _threshold(self, X: Array, targets: Targets, groups: Array | None) -> float:
        """Return the least probability above which out-of-fold predictions are precise enough."""
        fold = folds_of_labels(type(self).__name__, X, targets, groups, self.cv, self.random_state)
        sure, right = [], []
        for number in range(fold.max() + 1):
            train, test = fold != number, fold == number
            if len(np.unique(targets.codes[train])) < 2:
                continue
            probe = self._probe(X[train], targets.codes[train])
            proba = probe.predict_proba(X[test])
            sure.append(proba.max(axis=1))
            right.append(
                probe.classes_[proba.argmax(axis=1)] == targets.classes[targets.codes[test]]
            )
        if not sure:
            return _UNTESTED
        confidence, truth = np.concatenate(sure), np.concatenate(right)
        order = np.argsort(-confidence, kind="stable")
        precision = np.cumsum(truth[order]) / np.arange(1, len(order) + 1)
        enough = np.flatnonzero(precision >= self.precision)
        return float(confidence[order][enough[-1]]) if len(enough) else float("inf")


def _surest(proba: Array, threshold: float) -> Array:
    """Return which rows (n,) are taken on: above the threshold, the surest of each class.

    Of every class as many: three times those of the class that has the fewest.
    """
    code, sure = proba.argmax(axis=1), proba.max(axis=1)
    found = [np.flatnonzero((code == c) & (sure >= threshold)) for c in range(proba.shape[1])]
    taken = np.zeros(len(proba), bool)
    share = _GROWTH * min((len(rows) for rows in found if len(rows)), default=0)
    for rows in found:
        taken[rows[np.argsort(-sure[rows], kind="stable")[:share]]] = True
    return taken
