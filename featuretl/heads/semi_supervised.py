"""A linear probe for few labels: rows without one shape the scaling, and get labels by spreading."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from featuretl._core.parameters import check_int, parameter_error
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds
from featuretl._learning.groups import read_groups
from featuretl._learning.refit import forget
from featuretl._learning.rows import check_finite
from featuretl._learning.targets import Targets, is_positive, read_matrix
from featuretl.heads._some_labels import PredictsByProbe, folds_of_labels, read_some_targets
from featuretl.heads.linear import LinearProbeClassifier

# Similar neighbours count more: cosines to this power (Iscen et al. 2019).
_POWER = 3
# So much a label found by spreading weighs beside a given one, at most.
_TRUST = 0.3
_TOL = 1e-4
_LEAST = 1e-12


class SemiSupervisedProbeClassifier(PredictsByProbe, BaseEstimator):
    """A linear probe that learns from a few labelled rows and from many without a label.

    All rows standardise the features. Labels spread from row to row over a graph of neighbours
    (Zhou et al. 2004), the masses of the classes are made those of the given labels (Zhu et al.
    2003), and a `LinearProbeClassifier` learns the labels found, each weighted by how certain it is
    (Iscen et al. 2019), and by 0.3 at most beside 1 for a given label. Before that, labels held out say whether spreading finds them
    as well as the probe of the other labels does; where not, the probe learns the given ones only.

    Parameters
    ----------
    C : float > 0, default=0.03
        Inverse strength of the penalty, as in `LinearProbeClassifier`.
    n_neighbors : int >= 1, default=10
        Neighbours of a row in the graph, by the cosine of rows less their mean.
    alpha : float in (0, 1), default=0.9
        How much of its neighbours' labels a row takes on in each round, as in scikit-learn's
        `LabelSpreading`.
    cv : int >= 2, splitter or iterable of (train, test), default=3
        Folds of the labelled rows in which spreading and probe are compared; as many as the rows of
        the smallest class that has more than one.
    random_state : int, RandomState or None, default=None
        Shuffles the labelled rows into folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    probe_ : LinearProbeClassifier
        The head; its `coef_` and `intercept_` are for X as given.
    transduction_ : ndarray of shape (n,)
        The label of each row of X in `fit`: given, or the most probable one by spreading.
    decision_ : str
        Whether spread labels were learnt, and why.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has names.

    See Also
    --------
    sklearn.semi_supervised.LabelSpreading : Labels for the rows at hand, without a head.
    SelfTrainingProbeClassifier : For five labels per class and more, on some data.
    suggest_labels : Which rows to label next.

    Notes
    -----
    scikit-learn's `LabelSpreading` uses a graph that is not symmetric, in which all neighbours count
    the same; `benchmarks/labelling.py unlabelled` has both, and what else was tried. It is for one or
    two labels per class; with more, `SelfTrainingProbeClassifier` gained more on two of three data
    sets, and less on the third.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schoelkopf, Learning with Local and Global Consistency, 2004.
    Zhu, Ghahramani and Lafferty, Semi-Supervised Learning Using Gaussian Fields and Harmonic
    Functions, 2003 (class mass normalisation).
    Iscen, Tolias, Avrithis and Chum, Label Propagation for Deep Semi-supervised Learning, 2019,
    arXiv:1904.04717 (the graph, the weights).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> known = y.copy()
    >>> known[50:] = -1
    >>> head = SemiSupervisedProbeClassifier(random_state=0).fit(X, known)
    >>> print(head.decision_)
    Spread labels are learnt: of labels held out, 0.94 are found by spreading, 0.80 by the probe.
    >>> alone = LinearProbeClassifier().fit(X[:50], y[:50])
    >>> round(head.score(X[50:], y[50:]), 2), round(alone.score(X[50:], y[50:]), 2)
    (0.88, 0.69)
    """

    def __init__(
        self,
        C: float = 0.03,
        *,
        n_neighbors: int = 10,
        alpha: float = 0.9,
        cv: Any = 3,
        random_state: Any = None,
    ) -> None:
        self.C = C
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> SemiSupervisedProbeClassifier:
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
        SemiSupervisedProbeClassifier
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
        codes, weight = np.zeros(len(X), int), np.zeros(len(X))
        codes[known], weight[known] = targets.codes, 1.0
        self.decision_ = "All rows have a label: nothing is spread."
        if len(known) < len(X):
            graph = _graph(X, self.n_neighbors)
            spread = self._spread(graph, known, targets)
            codes = np.where(weight > 0, codes, spread.argmax(axis=1))
            if self._is_worth_it(X, graph, known, targets, groups):
                weight = np.where(weight > 0, 1.0, _TRUST * _certainty(spread))
        self.transduction_ = self.classes_[codes]
        self.probe_ = self._probe(X, Targets(targets.classes, codes), weight)
        return self

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        if not is_positive(self.C):
            raise parameter_error(owner, "C", "a number > 0", self.C)
        check_int(owner, "n_neighbors", self.n_neighbors, 1)
        if not is_positive(self.alpha) or not self.alpha < 1:
            raise parameter_error(owner, "alpha", "a number in (0, 1)", self.alpha)
        check_folds(owner, self.cv)

    def _probe(self, X: Array, targets: Targets, weight: Array) -> LinearProbeClassifier:
        """Return a probe of the rows that weigh something, standardised by all."""
        probe = LinearProbeClassifier(self.C)
        read_matrix(probe, X)
        return probe._learn(X, targets, np.ones(len(X)), weight[:, None])

    def _spread(self, graph: Any, known: Array, targets: Targets) -> Array:
        """Return soft labels (n, n_classes), rows summing to 1."""
        given = np.zeros((graph.shape[0], len(targets.classes)))
        given[known, targets.codes] = 1
        mass = given
        for _ in range(int(np.ceil(np.log(_TOL) / np.log(self.alpha)))):
            mass = self.alpha * (graph @ mass) + given
        # Rows that nothing reaches get all classes alike; classes get the shares of the given labels.
        mass = mass + _LEAST
        mass = mass * (given.sum(axis=0) / mass.sum(axis=0))
        soft: Array = mass / mass.sum(axis=1, keepdims=True)
        return soft

    def _is_worth_it(
        self, X: Array, graph: Any, known: Array, targets: Targets, groups: Array | None
    ) -> bool:
        """Compare spreading and the probe on labels held out; say what came out in `decision_`."""
        owner = type(self).__name__
        fold = folds_of_labels(owner, X[known], targets, groups, self.cv, self.random_state)
        right = []
        for number in range(fold.max() + 1):
            train, test = fold != number, fold == number
            rest = Targets(targets.classes, targets.codes[train])
            if len(np.unique(rest.codes)) < 2:
                continue
            spread = self._spread(graph, known[train], rest)[known[test]].argmax(axis=1)
            codes, weight = np.zeros(len(X), int), np.zeros(len(X))
            codes[known[train]], weight[known[train]] = rest.codes, 1.0
            probe = self._probe(X, Targets(targets.classes, codes), weight).predict(X[known[test]])
            truth = targets.codes[test]
            right.append(np.stack([spread == truth, probe == targets.classes[truth]]))
        if not right:
            self.decision_ = "Spread labels are learnt: too few are given to hold any out."
            return True
        by_spread, by_probe = np.concatenate(right, axis=1).mean(axis=1)
        found = f"of labels held out, {by_spread:.2f} are found by spreading, {by_probe:.2f} by the probe"
        worth = bool(by_spread >= by_probe)
        self.decision_ = f"Spread labels are {'learnt' if worth else 'not learnt'}: {found}."
        return worth


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
