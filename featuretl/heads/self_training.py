"""A linear probe that labels for itself the rows that it is sure of, as many of every class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from featuretl._core.parameters import check_int, parameter_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds
from featuretl._learning.groups import read_groups
from featuretl._learning.refit import forget
from featuretl._learning.targets import is_positive, read_matrix
from featuretl.heads._some_labels import PredictsByProbe, folds_of_labels, read_some_targets
from featuretl.heads.linear import LinearProbeClassifier

_UNTESTED = 0.9  # how sure, where no label can be held out
_GROWTH = 3


class SelfTrainingProbeClassifier(PredictsByProbe, BaseEstimator):
    """Self-training with class balance and a calibrated threshold, around a linear probe.

    A `LinearProbeClassifier` of the labelled rows predicts the others. Of those that it is sure of
    it takes on the surest, as many of every class, learns them with its labels, and predicts
    again. How sure is sure enough is found in every round on labelled rows that were held out, from
    the first round on: as sure as those of which a share of `precision` is right. That takes a
    learner for each fold besides the one of all labels.

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
        The least probability of a label that is taken on in the last round; 0.9 where no label could be held out, inf
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
        forget(self)
        X = read_matrix(self, X)
        known, targets = read_some_targets(self, y, len(X))
        groups = read_groups(type(self).__name__, groups, len(X))
        groups = None if groups is None else groups[known]
        self.classes_ = targets.classes
        codes, is_known = np.zeros(len(X), int), np.zeros(len(X), bool)
        codes[known], is_known[known] = targets.codes, True
        owner = type(self).__name__
        fold = np.full(len(X), -1)
        fold[known] = folds_of_labels(owner, X[known], targets, groups, self.cv, self.random_state)
        parts = [is_known, *(is_known & (fold != k) for k in range(fold.max() + 1))]
        learners = [
            _Learner(self.C, X, codes, part, len(targets.classes))
            for part in parts
            if len(np.unique(codes[part])) > 1
        ]
        for _ in range(self.rounds):
            self.threshold_ = self._threshold(learners[1:], is_known, codes)
            changes = [one.learn_more(self.threshold_) for one in learners if not is_known.all()]
            if not any(changes):
                break
        self.taken_ = learners[0].taken
        self.probe_ = LinearProbeClassifier(self.C)
        rows, labels = learners[0].learnt
        self.probe_.fit(X[rows], self.classes_[labels])
        return self

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        if not is_positive(self.C):
            raise parameter_error(owner, "C", "a number > 0", self.C)
        if not is_positive(self.precision) or self.precision > 1:
            raise parameter_error(owner, "precision", "a number in (0, 1]", self.precision)
        check_int(owner, "rounds", self.rounds, 1)
        check_folds(owner, self.cv)

    def _threshold(self, held_out: list[_Learner], is_known: Array, codes: Array) -> float:
        """Return the least probability above which held-out predictions are precise enough."""
        tests = [is_known & ~learner.is_known for learner in held_out]
        if not tests:
            return _UNTESTED
        pairs = list(zip(held_out, tests, strict=True))
        confidence = np.concatenate([of.proba[test].max(axis=1) for of, test in pairs])
        found = np.concatenate([of.proba[test].argmax(axis=1) for of, test in pairs])
        right = found == np.concatenate([codes[test] for test in tests])
        order = np.argsort(-confidence, kind="stable")
        precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        enough = np.flatnonzero(precision >= self.precision)
        return float(confidence[order][enough[-1]]) if len(enough) else float("inf")


class _Learner:
    """A probe that teaches itself: the one of all labels, and one for each fold held out of them.

    Rows that a fold holds out are to its learner what rows without a label are to the other: only so
    does their precision hold for those, round after round.

    Attributes
    ----------
    is_known : ndarray of shape (n,), bool
        Rows whose label it was given.
    taken : ndarray of shape (n,), bool
        Rows that it learnt by its own predictions.
    proba : ndarray of shape (n, n_classes)
    """

    def __init__(self, C: float, X: Array, codes: Array, is_known: Array, n_classes: int) -> None:
        self._C, self._X, self._n_classes = C, X, n_classes
        self.is_known, self._codes = is_known, np.where(is_known, codes, -1)
        self.taken = np.zeros(len(X), bool)
        self._fit()

    @property
    def learnt(self) -> tuple[Array, Array]:
        """The rows (k,) that it learnt, and the numbers of their classes."""
        rows = np.flatnonzero(self.is_known | self.taken)
        return rows, self._codes[rows]

    def learn_more(self, threshold: float) -> bool:
        """Learn the surest predictions with the labels; return whether that changes anything."""
        taken = _surest(np.where(self.is_known[:, None], 0, self.proba), threshold)
        codes = np.where(self.is_known, self._codes, self.proba.argmax(axis=1))
        is_new = not np.array_equal(taken, self.taken) or (codes != self._codes)[taken].any()
        self.taken, self._codes = taken, codes
        if is_new:
            self._fit()
        return bool(is_new)

    def _fit(self) -> None:
        rows, codes = self.learnt
        probe = LinearProbeClassifier(self._C).fit(self._X[rows], codes)
        self.proba = np.zeros((len(self._X), self._n_classes))
        self.proba[:, probe.classes_] = probe.predict_proba(self._X)


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
