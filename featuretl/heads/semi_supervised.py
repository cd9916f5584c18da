"""A linear probe for few labels, which learns from rows without a label, too."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_int, check_option, parameter_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows, judges
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.labels import some_labels
from featuretl._learning.refit import forget
from featuretl._learning.responses import Responses
from featuretl._learning.rows import check_finite
from featuretl._learning.targets import (
    Targets,
    check_length,
    is_positive,
    one_class_each,
    read_matrix,
    read_targets,
)
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads._self_training import Learner, teach
from featuretl.heads.linear import LinearProbeClassifier

METHODS = ("auto", "spreading", "self-training")

# Similar neighbours count more: cosines to this power (Iscen et al. 2019).
_POWER = 3
# The largest weight of a label found by spreading, beside 1 for a given one.
_TRUST = 0.3
_TOL = 1e-4
_LEAST = 1e-12


class SemiSupervisedProbeClassifier(Responses, BaseEstimator):
    """A linear probe that learns from a few labelled rows and from many without a label.

    "spreading" spreads the labels from row to row over a graph of neighbours (Zhou et al. 2004),
    scales the masses of the classes to those of the given labels (Zhu et al. 2003), and trains a
    `LinearProbeClassifier` on the labels found, each weighted by how certain it is (Iscen et al.
    2019), with at most 0.3 beside 1 for a given label; all rows standardise the features.
    "self-training" trains the probe on the given labels, adds its most confident predictions,
    balanced across classes (Zou et al. 2018), as labels, and trains it again, in five rounds.
    "auto" measures both, and the probe of the labelled rows alone, on labels that it holds out,
    and takes the most accurate one; of equal ones, the first in this order. Where there are too
    few labels to hold any out, it is spreading.

    Parameters
    ----------
    C : float > 0, default=0.03
        Inverse strength of the penalty, as in `LinearProbeClassifier`.
    method : {"auto", "spreading", "self-training"}, default="auto"
        How rows without a label are used.
    n_neighbors : int >= 1, default=10
        For spreading: neighbours of a row in the graph, by the cosine of the centred rows.
    alpha : float in (0, 1), default=0.9
        For spreading: the fraction of its neighbours' labels that a row adopts in each iteration,
        as in scikit-learn's `LabelSpreading`.
    cv : int >= 2, splitter or iterable of (train, test), default=3
        Folds of the labelled rows, for "auto" and the threshold of self-training; at most as many as
        the rows of the smallest class that has more than one.
    random_state : int, RandomState or None, default=None
        Shuffles the labelled rows into folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    probe_ : LinearProbeClassifier
        The head; its `coef_` and `intercept_` are for X as given.
    transduction_ : ndarray of shape (n,)
        The label of each row of X in `fit`: given, or the most probable one, by spreading where that
        was learnt, else by the head.
    decision_ : str
        What was learnt, and why: "spreading", "self-training" or "probe", and the accuracies on held-out labels.
    n_features_in_, feature_names_in_ : int, ndarray of shape (d,)
        Number of columns of X, and their names where X has any.

    See Also
    --------
    sklearn.semi_supervised.LabelSpreading : Labels for the rows at hand, without a head.
    sklearn.semi_supervised.SelfTrainingClassifier : Around any classifier, with a given threshold and
        without balance, which cost accuracy where labels are few.
    suggest_labels : Which rows to label next.

    Notes
    -----
    Self-training adds a prediction if it is at least as probable as held-out predictions of which 0.9
    are right, measured again in each round. This threshold is a heuristic, not a guarantee: few
    held-out labels tell little, and of what was added on sign-digits, 0.76, 0.81 and 0.92 were right with 2, 5
    and 10 labels per class. Self-training, and so "auto", trains up to six probes for each fold and for all labels,
    spreading a single one. Gains and losses are in ``benchmarks/README.md``; what else was tried, such as
    scikit-learn's `LabelSpreading`, whose graph is not symmetric, is in
    ``benchmarks/labelling.py unlabelled``.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schoelkopf, Learning with Local and Global Consistency, 2004.
    Zhu, Ghahramani and Lafferty, Semi-Supervised Learning Using Gaussian Fields and Harmonic
    Functions, 2003 (class mass normalisation).
    Iscen, Tolias, Avrithis and Chum, Label Propagation for Deep Semi-supervised Learning, 2019,
    arXiv:1904.04717 (the graph, the weights).
    Zou, Yu, Kumar and Wang, Unsupervised Domain Adaptation for Semantic Segmentation via
    Class-Balanced Self-Training, 2018 (the balance).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> known = y.copy()
    >>> known[50:] = -1
    >>> head = SemiSupervisedProbeClassifier(random_state=0).fit(X, known)
    >>> print(head.decision_)
    spreading: accuracy on 50 held-out labels: spreading 0.94, self-training 0.94, probe 0.82.
    >>> alone = LinearProbeClassifier().fit(X[:50], y[:50])
    >>> round(head.score(X[50:], y[50:]), 2), round(alone.score(X[50:], y[50:]), 2)
    (0.88, 0.69)
    """

    def __init__(
        self,
        C: float = 0.03,
        *,
        method: str = "auto",
        n_neighbors: int = 10,
        alpha: float = 0.9,
        cv: Any = 3,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.method = method
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : array-like of shape (n, d), float16, float32 or float64
            Embeddings, with and without a label; finite.
        y : array-like of shape (n,)
            At least two classes. -1, None, NaN and "" stand for no label.
        groups : array-like of shape (n,), default=None
            Labelled rows of one group are held out together.

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
        codes = self._read_codes(y, len(X))
        groups = read_groups(type(self).__name__, groups, len(X))
        found = self._learn(X, codes, groups)
        self.probe_.classes_ = self.classes_
        self.transduction_ = self.classes_[np.where(codes < 0, found, codes)]
        return self

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_option(owner, "method", self.method, METHODS)
        if not is_positive(self.C):
            raise parameter_error(owner, "C", "a number > 0", self.C)
        check_int(owner, "n_neighbors", self.n_neighbors, 1)
        if not is_positive(self.alpha) or not self.alpha < 1:
            raise parameter_error(owner, "alpha", "a number in (0, 1)", self.alpha)
        check_folds(owner, self.cv)

    def _read_codes(self, y: Any, n: int) -> Array:
        """Set `classes_`; return the class of each row (n,), -1 for no label."""
        owner = type(self).__name__
        labels, is_known = some_labels(owner, y, minus_one=True)
        check_length(n, "y", len(is_known))
        if not is_known.any():
            raise InputError(f"y of {owner} must have labels; got none.")
        targets = one_class_each(self, read_targets(self, labels, len(labels)))
        self.classes_ = targets.classes
        codes = np.full(n, -1)
        codes[is_known] = targets.codes
        return codes

    def _learn(self, X: Array, codes: Array, groups: Array | None) -> Array:
        """Set `probe_` and `decision_`; return the most probable class of each row (n,)."""
        method, why = self.method, "as given."
        if (codes >= 0).all():
            method, why = "probe", "all rows have a label."
        graph, parts = None, []
        if method in ("auto", "spreading"):
            graph = _graph(X, self.n_neighbors)
        if method in ("auto", "self-training"):
            parts = self._parts(X, codes, groups)
        learners = [Learner(self.C, X, part, len(self.classes_)) for part in parts]
        found = {"probe": [learner.found for learner in learners]}
        thresholds = teach(learners, codes)
        if method == "auto":
            found["self-training"] = [learner.found for learner in learners]
            found["spreading"] = [self._spread(graph, part).argmax(axis=1) for part in parts]
            method, why = _decision(found, parts, codes)
        self.decision_ = f"{method}: {why}"
        if method == "spreading":
            return self._learn_spread(X, codes, graph)
        learner = Learner(self.C, X, codes, len(self.classes_))
        if method == "self-training":
            for threshold in thresholds:
                learner.learn_more(threshold)
            count, least = f"{learner.added.sum():,} of {(codes < 0).sum():,}", thresholds[-1]
            how = f", with a probability of at least {least:.2f}" if np.isfinite(least) else ""
            self.decision_ += f" {count} rows without a label were added{how}."
        self.probe_ = learner.probe
        return learner.found

    def _parts(self, X: Array, codes: Array, groups: Array | None) -> list[Array]:
        """Return `codes` without the labels of each fold in turn; none where no fold can judge."""
        known = np.flatnonzero(codes >= 0)
        targets = Targets(self.classes_, codes[known])
        how = (type(self).__name__, targets, subset(groups, known), self.cv, self.random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FeatureTLWarning)  # few labels are what this is for
            try:
                fold, n_folds = fold_of_rows(*how, X=X[known])
            except InputError:
                return []
        parts = []
        for number in range(n_folds if judges(targets, fold) else 0):
            part = codes.copy()
            part[known[fold == number]] = -1
            if len(np.unique(part)) > 2:  # two classes and no label
                parts.append(part)
        return parts

    def _spread(self, graph: Any, codes: Array) -> Array:
        """Return soft labels (n, n_classes), rows summing to 1."""
        given = (codes[:, None] == np.arange(len(self.classes_))).astype(float)
        mass = given
        for _ in range(int(np.ceil(np.log(_TOL) / np.log(self.alpha)))):
            mass = self.alpha * (graph @ mass) + given
        # Rows out of reach get all classes alike; classes get the fractions of the given labels.
        mass = mass + _LEAST
        mass = mass * (given.sum(axis=0) / mass.sum(axis=0))
        soft: Array = mass / mass.sum(axis=1, keepdims=True)
        return soft

    def _learn_spread(self, X: Array, codes: Array, graph: Any) -> Array:
        """Set `probe_`, standardised by all rows; return the most probable class of each row (n,)."""
        soft = self._spread(graph, codes)
        found = soft.argmax(axis=1)
        targets = Targets(self.classes_, np.where(codes < 0, found, codes))
        weight = np.where(codes < 0, _TRUST * _certainty(soft), 1.0)
        self.probe_ = LinearProbeClassifier(self.C)
        read_matrix(self.probe_, X)
        self.probe_._learn(X, targets, np.ones(len(X)), weight[:, None])
        return found

    def _logits(self, X: Any) -> Array:
        check_is_fitted(self)
        return self.probe_._logits(read_matrix(self, X, reset=False))


def _decision(found: dict[str, list[Array]], parts: list[Array], codes: Array) -> tuple[str, str]:
    """Return the most accurate method on held-out labels, and the accuracies in words."""
    if not parts:
        return "spreading", "too few labels are given to hold any out."
    held_out = [(part < 0) & (codes >= 0) for part in parts]
    truth = np.concatenate([codes[rows] for rows in held_out])
    scores = {}
    for name in ("spreading", "self-training", "probe"):
        pairs = zip(found[name], held_out, strict=True)
        right = np.concatenate([codes_found[rows] for codes_found, rows in pairs]) == truth
        scores[name] = right.mean()
    accuracies = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    best = max(scores, key=lambda name: scores[name])
    return best, f"accuracy on {len(truth)} held-out labels: {accuracies}."


def _graph(X: Array, n_neighbors: int) -> Any:
    """Return the normalised, symmetric graph (n, n) of neighbours, sparse."""
    check_finite(X)
    X = np.asarray(X, np.float64 if X.dtype == np.float64 else np.float32)
    Z = normalize(X - X.mean(axis=0))
    k = min(n_neighbors, len(Z) - 1)
    distance, neighbour = NearestNeighbors(n_neighbors=k).fit(Z).kneighbors()
    cosine = np.clip(1 - np.square(distance) / 2, 0, 1).astype(np.float64)
    row = np.repeat(np.arange(len(Z)), k)
    graph = csr_array((cosine.ravel() ** _POWER, (row, neighbour.ravel())), shape=(len(Z), len(Z)))
    graph = (graph + graph.T).tocoo()
    degree = np.maximum(graph.sum(axis=1), _LEAST)
    graph.data /= np.sqrt(degree[graph.row] * degree[graph.col])
    return graph.tocsr()


def _certainty(soft: Array) -> Array:
    """Return 1 for rows (n,) of one class, 0 for those of all classes alike."""
    return np.clip(1 - entr(soft).sum(axis=1) / np.log(soft.shape[1]), 0, 1)
