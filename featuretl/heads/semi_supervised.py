"""A linear probe for few labels, which also learns from unlabelled rows."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featuretl._core.parameters import check_int, check_number, check_option
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows, judges
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.labels import some_labels
from featuretl._learning.responses import Responses
from featuretl._learning.rows import check_finite
from featuretl._learning.targets import Targets, check_length, read_matrix, read_targets
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier

METHODS = ("auto", "spreading", "self-training")

# Spreading.
_POWER = 3  # of the cosines in the graph: similar neighbours count more (Iscen et al. 2019)
_TRUST = 0.3  # largest weight of a pseudo-label; a given label has 1
_TOL = 1e-4
_LEAST = 1e-12
# Self-training.
_PRECISION = 0.9  # fraction of correct held-out predictions above the threshold
_UNTESTED = 0.9  # the threshold if no label can be held out
_ROUNDS = 5
_BALANCE = 3  # no class gets more pseudo-labels than this many times the least frequent one


@dataclass(eq=False, repr=False)
class SemiSupervisedProbeClassifier(Responses, BaseEstimator):
    """A linear probe that learns from a few labelled rows and many unlabelled ones.

    "spreading" propagates the labels over a graph of neighbours (Zhou et al. 2004), normalises the
    class masses to those of the given labels (Zhu et al. 2003), and trains a
    `LinearProbeClassifier`, standardised by all rows, on the resulting pseudo-labels, weighted by
    their certainty (Iscen et al. 2019): at most 0.3 where a given label has 1.

    "self-training" trains the probe on the given labels, adds its most confident predictions,
    balanced across classes (Zou et al. 2018), as pseudo-labels, and refits, in five rounds.

    "auto" uses the most accurate of both and of the probe of the labelled rows alone, compared on
    held-out labels; ties go to the first in this order. With too few labels it uses spreading.

    Parameters
    ----------
    C : float > 0, default=0.03
        Inverse strength of the penalty, as in `LinearProbeClassifier`.
    method : {"auto", "spreading", "self-training"}, default="auto"
        How the head uses unlabelled rows.
    n_neighbors : int >= 1, default=10
        For spreading: number of neighbours per row in the graph, by cosine of the centred rows.
    alpha : float in (0, 1), default=0.9
        For spreading: the fraction of its neighbours' labels that a row adopts in each iteration,
        as in scikit-learn's `LabelSpreading`.
    cv : int >= 2, splitter or iterable of (train, test), default=3
        Folds of the labelled rows, for "auto" and the threshold of self-training; at most the
        number of rows of the smallest class that has more than one.
    random_state : int, RandomState or None, default=None
        Shuffles the labelled rows into folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    probe_ : LinearProbeClassifier
        The head; its `coef_` and `intercept_` are for X as given.
    transduction_ : ndarray of shape (n,)
        The label of each row of X in `fit`: the given label, or else the most probable one by
        spreading, if that was used, or by the head.
    decision_ : str
        The method used and why: "spreading", "self-training" or "probe", and held-out accuracies.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    sklearn.semi_supervised.LabelSpreading : Labels for the rows of `fit` only.
    sklearn.semi_supervised.SelfTrainingClassifier : For any classifier, with a fixed threshold and
        without class balance; less accurate with few labels.
    suggest_labels : Which rows to label next.

    Notes
    -----
    Self-training adds a prediction if its probability reaches the threshold above which 0.9 of
    held-out predictions are correct, measured in each round: a heuristic, as held-out labels are
    few. Self-training, and so "auto", trains up to six probes per fold and for all labels;
    spreading trains one. ``benchmarks/README.md`` has gains and losses.

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

    C: float = 0.03
    _: KW_ONLY
    method: str = "auto"
    n_neighbors: int = 10
    alpha: float = 0.9
    cv: Any = 3
    random_state: Any = None

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Fit the head.

        Parameters and errors are those of `LinearProbeClassifier.fit`; X is no tensor. In `y`, with
        at least two classes, -1, None, NaN and "" mark rows without a label.
        """
        owner = type(self).__name__
        check_option(owner, "method", self.method, METHODS)
        check_number(owner, "C", self.C, "(0, inf)")
        check_int(owner, "n_neighbors", self.n_neighbors, 1)
        check_number(owner, "alpha", self.alpha, "(0, 1)")
        check_folds(owner, self.cv)
        X = read_matrix(self, X)
        codes = self._read_codes(y, len(X))
        groups = read_groups(owner, groups, len(X))
        found = self._learn(X, codes, groups)
        self.probe_.classes_ = self.classes_
        self.transduction_ = self.classes_[np.where(codes < 0, found, codes)]
        return self

    def _read_codes(self, y: Any, n: int) -> Array:
        """Set `classes_`; return the class numbers (n,), -1 for no label."""
        owner = type(self).__name__
        labels, is_known = some_labels(owner, y, minus_one=True)
        check_length(n, "y", len(is_known))
        if not is_known.any():
            raise InputError(f"y of {owner} must have labels; got none.")
        targets = read_targets(self, labels, len(labels), multilabel=False)
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
        trainers = [SelfTrainer(self.C, X, part, len(self.classes_)) for part in parts]
        found = {"probe": [trainer.predicted for trainer in trainers]}
        thresholds = run_rounds(trainers, codes)
        if method == "auto":
            found["self-training"] = [trainer.predicted for trainer in trainers]
            found["spreading"] = [self._spread(graph, part).argmax(axis=1) for part in parts]
            method, why = _decision(found, parts, codes)
        self.decision_ = f"{method}: {why}"
        if method == "spreading":
            return self._fit_spread(X, codes, graph)
        trainer = SelfTrainer(self.C, X, codes, len(self.classes_))
        if method == "self-training":
            for threshold in thresholds:
                trainer.refit(threshold)
            count, least = f"{trainer.added.sum():,} of {(codes < 0).sum():,}", thresholds[-1]
            how = f", with a probability of at least {least:.2f}" if np.isfinite(least) else ""
            self.decision_ += f" {count} rows without a label were added{how}."
        self.probe_ = trainer.probe
        return trainer.predicted

    def _parts(self, X: Array, codes: Array, groups: Array | None) -> list[Array]:
        """Return a copy of `codes` per fold, without its labels; none if no fold can be scored."""
        known = np.flatnonzero(codes >= 0)
        targets = Targets(self.classes_, codes[known])
        how = (type(self).__name__, targets, subset(groups, known), self.cv, self.random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FeatureTLWarning)  # few labels are expected here
            try:
                fold = fold_of_rows(*how, X=X[known])
            except InputError:
                return []
        parts = []
        for number in range(fold.max() + 1 if judges(targets, fold) else 0):
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
        mass = mass + _LEAST  # unreachable rows get uniform labels
        mass = mass * (given.sum(axis=0) / mass.sum(axis=0))
        return mass / mass.sum(axis=1, keepdims=True)

    def _fit_spread(self, X: Array, codes: Array, graph: Any) -> Array:
        """Set `probe_`, standardised by all rows; return the most probable classes (n,)."""
        soft = self._spread(graph, codes)
        found = soft.argmax(axis=1)
        targets = Targets(self.classes_, np.where(codes < 0, found, codes))
        # 1 for rows of a single class, 0 for uniform ones.
        certainty = np.clip(1 - entr(soft).sum(axis=1) / np.log(soft.shape[1]), 0, 1)
        weight = np.where(codes < 0, _TRUST * certainty, 1.0)
        self.probe_ = LinearProbeClassifier(self.C)
        read_matrix(self.probe_, X)
        self.probe_._learn(X, targets, np.ones(len(X)), weight[:, None])
        return found

    def _logits(self, X: Any) -> Array:
        X = read_matrix(self, X, reset=False)
        return self.probe_._logits(X)


def _decision(found: dict[str, list[Array]], parts: list[Array], codes: Array) -> tuple[str, str]:
    """Return the most accurate method on held-out labels, and the accuracies in words."""
    if not parts:
        return "spreading", "too few labels are given to hold any out."
    held_out = [(part < 0) & (codes >= 0) for part in parts]
    truth = np.concatenate([codes[rows] for rows in held_out])
    scores = {}
    for name in ("spreading", "self-training", "probe"):
        pairs = zip(found[name], held_out, strict=True)
        right = np.concatenate([predicted[rows] for predicted, rows in pairs]) == truth
        scores[name] = right.mean()
    accuracies = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    best = max(scores, key=lambda name: scores[name])
    return best, f"accuracy on {len(truth)} held-out labels: {accuracies}."


def _graph(X: Array, n_neighbors: int) -> Any:
    """Return the normalised, symmetric graph of neighbours, sparse (n, n)."""
    check_finite(X)
    X = np.asarray(X, np.float64 if X.dtype == np.float64 else np.float32)
    Z = normalize(X - X.mean(axis=0))
    neighbours = NearestNeighbors(n_neighbors=min(n_neighbors, len(Z) - 1)).fit(Z)
    graph = csr_array(neighbours.kneighbors_graph(mode="distance"), dtype=np.float64)
    graph.data = np.clip(1 - np.square(graph.data) / 2, 0, 1) ** _POWER
    graph = (graph + graph.T).tocoo()
    degree = np.maximum(graph.sum(axis=1), _LEAST)
    graph.data /= np.sqrt(degree[graph.row] * degree[graph.col])
    return graph.tocsr()


class SelfTrainer:
    """A probe of the rows of `codes` >= 0 that adds its own confident predictions, `added`."""

    def __init__(self, C: float, X: Array, codes: Array, n_classes: int) -> None:
        self._C, self._X, self._n_classes = C, X, n_classes
        self.codes, self.added = codes, np.zeros(len(X), bool)
        self._fit(codes)

    @property
    def predicted(self) -> Array:
        """The most probable class of each row (n,)."""
        return self.proba.argmax(axis=1)

    def refit(self, threshold: float) -> None:
        """Fit the labels and the predictions that are at least as probable as `threshold`."""
        unknown = np.where(self.codes[:, None] < 0, self.proba, 0)
        self.added = _most_confident(unknown, threshold)
        labels = np.where(self.added, self.predicted, self.codes)
        if not np.array_equal(labels, self._labels):
            self._fit(labels)

    def _fit(self, labels: Array) -> None:
        self._labels = labels
        rows = np.flatnonzero(labels >= 0)
        self.probe = LinearProbeClassifier(self._C).fit(self._X[rows], labels[rows])
        self.proba = np.zeros((len(self._X), self._n_classes))
        self.proba[:, self.probe.classes_] = self.probe.predict_proba(self._X)


def run_rounds(trainers: list[SelfTrainer], codes: Array) -> list[float]:
    """Run all rounds of the trainers of the folds; return the threshold of each round."""
    thresholds = []
    for _ in range(_ROUNDS):
        thresholds.append(_threshold(trainers, codes))
        for trainer in trainers:
            trainer.refit(thresholds[-1])
    return thresholds


def _threshold(trainers: list[SelfTrainer], codes: Array) -> float:
    """Return the least probability at which held-out predictions are precise; inf if none is."""
    if not trainers:
        return _UNTESTED
    tests = [(trainer, (trainer.codes < 0) & (codes >= 0)) for trainer in trainers]
    confidence = np.concatenate([of.proba[test].max(axis=1) for of, test in tests])
    right = np.concatenate([of.predicted[test] == codes[test] for of, test in tests])
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= _PRECISION)
    return float(confidence[order][enough[-1]]) if len(enough) else float("inf")


def _most_confident(proba: Array, threshold: float) -> Array:
    """Return which rows (n,) to add: the most confident ones, balanced across classes."""
    code, confidence = proba.argmax(axis=1), proba.max(axis=1)
    found = [np.flatnonzero((code == c) & (confidence >= threshold)) for c in range(proba.shape[1])]
    most = _BALANCE * min((len(rows) for rows in found if len(rows)), default=0)
    added = np.zeros(len(proba), bool)
    for rows in found:
        added[rows[np.argsort(-confidence[rows], kind="stable")[:most]]] = True
    return added
