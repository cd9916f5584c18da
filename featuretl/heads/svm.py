"""The SVM probe: a support vector machine on embeddings, linear or with the RBF kernel."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if

from featuretl._core.parameters import check_number, check_option, random_generator
from featuretl._core.types import Array
from featuretl._learning.folds import folds_to_choose_by, judges
from featuretl._learning.responses import Responses
from featuretl._learning.rows import Rows, affine, in_blocks, one_thread_pool
from featuretl._learning.targets import loss_weight, read_matrix, read_targets, read_weight
from featuretl.exceptions import FeatureTLWarning
from featuretl.heads._solver.machines import Exact, Linear, Nystrom, TrainingSet
from featuretl.heads._solver.path import check_probe

_MOST_EXACT_ROWS = 4000
_N_COMPONENTS = 1000
_AUTO_GAMMAS = (0.03, 0.1, 0.3, 1.0)
_UNTESTED_C = {"linear": 0.01, "rbf": 1.0}  # for C="cv" if no fold can be scored
# The decision value that minimises the squared hinge loss is 2 p - 1 (Zhang 2004). Near 0 this is
# the logistic function of twice the value; it holds for decision values around 1.
_EXPECTED_TEMPERATURE = 0.5


@dataclass(eq=False, repr=False)
class SVMProbeClassifier(Responses, BaseEstimator):
    """Support vector machine on standardised embeddings, with optional choice of C and gamma.

    Parameters
    ----------
    C : float > 0 or "cv", default="cv"
        Weight of the loss against the penalty. "cv" chooses C by cross-validated accuracy. Ties go
        to the smallest C, except that a model which always predicts one class loses them.
    kernel : {"linear", "rbf"}, default="linear"
        "linear": one-vs-rest squared hinge loss, solved in the primal, for any number of rows.
        "rbf": scikit-learn's `SVC` (hinge loss, one-vs-one) up to 4,000 rows; above, the linear
        machine on 1,000 Nystroem features, with a warning.
    gamma : float > 0, "scale" or "cv", default="cv"
        Width of the RBF kernel ``exp(-gamma ||z - z'||^2)`` on standardised features. "scale" is
        1 / d; "cv" chooses among 0.03, 0.1, 0.3 and 1 times that, together with C.
    Cs : as in `LinearProbeClassifier`
        For `SVC`, "auto" tries 0.1, 1, 10 and 100.
    cv, scaling, class_weight : as in `LinearProbeClassifier`
    calibrate : bool, default=True
        Provide `predict_proba`, by a temperature fitted to held-out decision values; with few rows
        the temperature stays near half their mean distance from the boundary.
    tol : float > 0, default=1e-4
        Relative precision of the objective; for `SVC`, its own tolerance is ten times `tol`.
    random_state : int, RandomState or None, default=None
        Shuffles the rows into folds and draws the Nystroem landmarks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    C_, gamma_ : float
        The C of the fitted head, and with ``kernel="rbf"`` its gamma.
    approximated_ : bool
        Whether Nystroem features approximate the RBF kernel.
    coef_, intercept_ : ndarray of shape (n_classes, d) and (n_classes,), (1, d) and (1,) for two
        With ``kernel="linear"``: coefficients and intercepts for X as given.
    path_ : Bunch
        If C or gamma was chosen: `C` (m,), `gamma` (m,; NaN for "linear") and `accuracy`
        (m, n_folds) on held-out rows.
    calibration_, n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    LinearProbeClassifier : Usually as accurate on embeddings, with better probabilities.

    Notes
    -----
    The linear machine shares the solver of `LinearProbeClassifier`; unlike `LinearSVC`, it does not
    penalise the intercept. With the RBF kernel, all folds share the standardisation and the
    landmarks of all rows; neither depends on `y`.

    References
    ----------
    Zhang, Statistical Behavior and Consistency of Classification Methods Based on Convex Risk
    Minimization, 2004 (decision values and probabilities).
    Williams and Seeger, Using the Nystrom Method to Speed Up Kernel Machines, 2001.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featuretl.heads.svm import SVMProbeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> SVMProbeClassifier(kernel="rbf", random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    C: float | str = "cv"
    _: KW_ONLY
    kernel: str = "linear"
    gamma: float | str = "cv"
    Cs: Any = "auto"
    cv: Any = 5
    scaling: str = "floored"
    class_weight: Any = None
    calibrate: bool = True
    tol: float = 1e-4
    random_state: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head; parameters and errors are those of `LinearProbeClassifier.fit`.

        `y` has one class per row. A tensor stays on its device with ``kernel="linear"`` only.
        """
        owner = type(self).__name__
        check_probe(self)
        check_number(owner, "gamma", self.gamma, "(0, inf)", "scale", "cv")
        check_option(owner, "kernel", self.kernel, ("linear", "rbf"))
        X = read_matrix(self, X, dispatch=self.kernel == "linear")
        targets = read_targets(self, y, len(X), multilabel=False)
        weight = read_weight(self, sample_weight, len(X))
        in_loss = loss_weight(self, self.class_weight, targets, weight)[:, 0]
        self.classes_ = targets.classes
        fold = np.full(len(X), -1)
        if self._needs_folds():
            how = (owner, targets, groups, self.cv, self.random_state)
            fold = folds_to_choose_by(*how, X, in_loss)
        with one_thread_pool(X) as workers:
            rows = Rows(X, weight, workers, self.scaling)
            data = TrainingSet(rows, targets.codes, len(self.classes_), in_loss, fold)
            self._choose_and_fit(data, judges(targets, fold))
        return self

    predict_proba = available_if(lambda self: self.calibrate)(Responses.predict_proba)
    """Return probabilities (n, n_classes); needs ``calibrate=True``."""

    def _needs_folds(self) -> bool:
        return self.C == "cv" or self.calibrate or (self.kernel == "rbf" and self.gamma == "cv")

    def _choose_and_fit(self, data: TrainingSet, judged: bool) -> None:
        """Search the machines on the folds if requested; fit the best one on all rows."""
        self.approximated_ = self.kernel == "rbf" and data.rows.n > _MOST_EXACT_ROWS
        Cs, machines, best = self.Cs, self._machines(data), 0
        if not judged:
            Cs, machines = [_UNTESTED_C[self.kernel]], machines[-1:]
        self.C_ = self.C
        if self._needs_folds():
            Cs = Cs if self.C == "cv" else [self.C]
            paths = [machine.search(data, Cs) for machine in machines]
            ranks = [path.rank for path in paths]
            best = ranks.index(max(ranks))
            self.C_ = paths[best].best
            if self.C == "cv" or len(paths) > 1:
                gammas = [np.full(len(p.C), m.gamma) for m, p in zip(machines, paths, strict=True)]
                self.path_ = Bunch(
                    C=np.concatenate([path.C for path in paths]),
                    gamma=np.concatenate(gammas),
                    accuracy=np.concatenate([path.accuracy for path in paths]),
                )
            if self.calibrate:
                logits, held_out = paths[best].logits, data.weight * (data.fold >= 0)
                expected = _EXPECTED_TEMPERATURE * _mean_margin(logits, held_out)
                how = (logits, data.codes, held_out, judged, expected)
                self.calibration_ = self._calibration(*how)
        self._machine = machines[best].fit(data, self.C_)
        if self.kernel == "linear":
            self.coef_, self.intercept_ = self._machine.coef, self._machine.intercept
        else:
            self.gamma_ = self._machine.gamma

    def _machines(self, data: TrainingSet) -> list[Any]:
        if self.kernel == "linear":
            return [Linear(self.tol)]
        gammas = [factor / data.rows.d for factor in _AUTO_GAMMAS]
        if self.gamma != "cv":
            gammas = [1 / data.rows.d if self.gamma == "scale" else float(self.gamma)]
        if not self.approximated_:
            return [Exact(self.tol, gamma) for gamma in gammas]
        message = (
            f"SVMProbeClassifier approximates the RBF kernel by {_N_COMPONENTS} Nystroem features, "
            f"because X has {data.rows.n} rows, more than {_MOST_EXACT_ROWS}; use scikit-learn's "
            "SVC for the exact kernel (n x n numbers)."
        )
        warnings.warn(message, FeatureTLWarning, stacklevel=4)
        seed = random_generator(type(self).__name__, self.random_state).randint(2**31 - 1)
        return [Nystrom(self.tol, gamma, _N_COMPONENTS, seed) for gamma in gammas]

    def _logits(self, X: Any) -> Array:
        X = read_matrix(self, X, reset=False, dispatch=self.kernel == "linear")
        if self.kernel == "linear":
            return affine(X, self._machine.coef, self._machine.intercept)
        columns = 1 if len(self.classes_) == 2 else len(self.classes_)
        return in_blocks(X, self._machine.values, columns)


def _mean_margin(values: Array, weight: Array) -> float:
    """Return the mean distance of decision values (n, columns) from the boundary; 1 if it is 0."""
    margin = np.abs(values[:, 0])
    if values.shape[1] > 1:
        second, first = np.partition(values, -2, axis=1)[:, -2:].T
        margin = (first - second) / 2
    return float(np.average(margin, weights=weight)) or 1.0
