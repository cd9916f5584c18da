"""The linear probe: logistic regression on embeddings."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if

from featuretl._core.parameters import check_int, check_option
from featuretl._core.types import Array
from featuretl._learning.arrays import to_numpy
from featuretl._learning.calibration import log_loss_of_rows
from featuretl._learning.folds import folds_to_choose_by, judges
from featuretl._learning.losses import binary_cross_entropy, softmax_cross_entropy
from featuretl._learning.refit import forget
from featuretl._learning.responses import Responses, chosen_codes
from featuretl._learning.rows import Rows, affine, one_thread_pool
from featuretl._learning.targets import (
    Targets,
    loss_weight,
    read_announced,
    read_matrix,
    read_targets,
    read_weight,
)
from featuretl.exceptions import FeatureTLWarning
from featuretl.heads._solver.lbfgs import Solution
from featuretl.heads._solver.path import check_probe, fold_means, search
from featuretl.heads._solver.problem import LinearProblem
from featuretl.heads._solver.stream import Stream

_UNTESTED_C = 0.03  # for C="cv" if no fold can be scored
_SEARCH_TOL = 1e-6  # neighbouring values of C have similar scores


@dataclass(eq=False, repr=False)
class LinearProbeClassifier(Responses, BaseEstimator):
    """Logistic regression on embeddings, with built-in standardisation and optional choice of C.

    The head standardises the features and fits L2-penalised logistic regression: multinomial for
    several classes, binary for two, one binary problem per label for multi-label `y`. It then folds
    the standardisation into `coef_` and `intercept_`, so that the fitted head is one matrix on raw
    embeddings. ``scaling="features"`` has the objective of ``make_pipeline(StandardScaler(),
    LogisticRegression(C=C))``.

    Parameters
    ----------
    C : float > 0 or "cv", default=0.03
        Inverse strength of the penalty on the standardised coefficients; the loss is a sum over
        rows, as in scikit-learn. "cv" chooses C by cross-validation, then refits on all rows.
    Cs : "auto" or array-like of float > 0, default="auto"
        Candidates of ``C="cv"``. "auto" walks up the decades from 1e-5 to 10 until the score has
        fallen twice in a row, then tries four values within a decade of the peak.
    cv : int >= 2, splitter or iterable of (train, test), default=5
        Folds. An int makes folds that are stratified by class and keep equal rows, and the `groups`
        of `fit`, together. If a class has fewer rows, or there are fewer groups, there are fewer
        folds and a warning. A class whose rows are all in one group is never held out; if a single
        class remains to score, the folds split rows instead of groups.
    scoring : {"log_loss", "accuracy"}, default="log_loss"
        Criterion of ``C="cv"``, averaged over folds. The log-loss has no ties and gives better
        probabilities. Multi-label accuracy is the fraction of correct entries of (n, n_labels).
        The log-loss breaks ties between equal accuracies.
    scaling : {"floored", "features", "common"}, default="floored"
        Divisor of the features: "features" is the standard deviation of each, "common" the root of
        their mean variance, "floored" the greater of both. "floored" does not amplify features that
        are nearly constant in training, which would cost accuracy with few labels and break
        predictions for images in which these features vary.
    class_weight : dict, "balanced" or None, default=None
        Factors on the weights of the classes, as in scikit-learn; None or "balanced" for
        multi-label `y`.
    calibrate : bool, default=False
        Divide the logits by a temperature, fitted to held-out predictions, before computing
        probabilities; see `calibration_`.
    tol : float > 0, default=1e-4
        The solver stops when the expected further decrease is below `tol` times the objective,
        which is then typically within 40 x `tol` of its minimum. Use 1e-6 to compare coefficients.
    max_iter : int >= 1, default=1000
        Maximum number of passes over X for each C.
    random_state : int, RandomState or None, default=None
        Shuffles the rows into folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes; for multi-label `y` the labels, in the order of the columns.
    coef_, intercept_ : ndarray of shape (k, d) and (k,)
        Coefficients and intercepts for X as given; float32, or float64 for float64 X. k is the
        number of classes or labels, 1 for two classes.
    C_ : float
        The C of the fitted head.
    path_ : Bunch
        With ``C="cv"``: `C` (m,), and `log_loss` and `accuracy` (m, n_folds) on held-out rows.
    calibration_ : Bunch
        With ``calibrate=True``: `temperature`, and the expected calibration error of held-out
        predictions before and after scaling, `error_before` and `error_after`.
    n_iter_ : int
        Number of passes over X in the final fit.
    n_features_in_, feature_names_in_ : int, ndarray of shape (d,)
        Number of columns of X, and their names if X has names.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : Sparse X, other penalties and solvers.
    sklearn.neighbors.KNeighborsClassifier : After ``Normalizer()``, neighbours in cosine distance.
    sklearn.neural_network.MLPClassifier : A hidden layer on embeddings.

    Notes
    -----
    The solver is full-batch L-BFGS, preconditioned by the Gram matrix of the standardised features.
    It fits all folds in one pass over X, on one thread pool. Each C starts from the solution of the
    previous one, and a single fit of many rows from a fit to every 16th row. Each fold is
    standardised by its own training rows, so its held-out rows do not leak into its score.

    X is copied at most once. A tensor, memory map or float16 array above 1 GiB as float32 is
    instead read and standardised in blocks at each evaluation of the objective. Memory then holds a
    block per thread, a sample of 2**26 elements, and about 100 bytes of `y` and weights per row.

    References
    ----------
    Nocedal and Wright, Numerical Optimization, 2nd edition, 2006, section 7.2 (L-BFGS).
    Frangella, Tropp and Udell, Randomized Nystrom Preconditioning, 2023, doi:10.1137/21M1466244.
    Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017 (temperature).
    Platt, Probabilistic Outputs for Support Vector Machines, 1999 (a prior for few rows).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featuretl.heads.linear import LinearProbeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> head = LinearProbeClassifier(C="cv", random_state=0).fit(X, y)
    >>> round(head.score(X, y), 2)
    0.98
    >>> head.coef_.shape
    (3, 4)
    """

    C: float | str = 0.03
    _: KW_ONLY
    Cs: Any = "auto"
    cv: Any = 5
    scoring: str = "log_loss"
    scaling: str = "floored"
    class_weight: Any = None
    calibrate: bool = False
    tol: float = 1e-4
    max_iter: int = 1000
    random_state: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, d), float16, bfloat16, float32 or float64
            Finite embeddings; may be a memory map, or a `ShardedMatrix` larger than memory. A
            tensor is computed on its device under scikit-learn's array API dispatch.
        y : array-like of shape (n,), indicator of shape (n, n_labels), or n lists of labels
            At least two classes. Lists of 0 and 1 of equal length are an indicator.
        sample_weight : array-like of shape (n,), default=None
            Weights >= 0 of the rows, also used by the standardisation.
        groups : array-like of shape (n,), default=None
            Rows of one group are held out together when choosing C or the temperature.

        Raises
        ------
        ParameterError, InputError
            If a parameter has an invalid value, X has NaN, `y` a single class, or lengths differ.
        """
        self._check_parameters()
        forget(self, "_stream")
        X = read_matrix(self, X, dispatch=True)
        targets = read_targets(self, y, len(X))
        weight = read_weight(self, sample_weight, len(X))
        in_loss = loss_weight(self, self.class_weight, targets, weight)
        return self._learn(X, targets, weight, in_loss, groups)

    @available_if(lambda self: not self.calibrate and self.class_weight != "balanced")
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Update the head with another portion of rows; earlier rows are not needed again.

        One pass over all portions comes close to `fit` on all rows: the head keeps the loss of
        earlier rows as a second-order expansion of (d + 1)^2 numbers. Shuffle the rows, and give
        portions of all classes with at least as many rows as columns; rows sorted by class cost
        accuracy. ``C="cv"`` chooses C on the first portion. ``calibrate=True`` and
        ``class_weight="balanced"`` need all rows together and have no `partial_fit`. A head from
        `fit` or a model file is fitted from scratch, with a FeatureTLWarning.

        Parameters
        ----------
        X, y, sample_weight : as for `fit`
        classes : array-like of shape (n_classes,), default=None
            All classes, or labels, of all portions; required in the first call.

        Raises
        ------
        ParameterError, InputError
            As in `fit`, or if `y` holds a class that is not in `classes`.
        """
        self._check_parameters()
        first = not hasattr(self, "_stream")
        if first and hasattr(self, "classes_"):
            message = (
                f"partial_fit of {type(self).__name__} starts from scratch: a head from fit or a "
                "model file does not keep the statistics to continue from."
            )
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
        if first:
            forget(self, keep=("classes_", "n_features_in_", "feature_names_in_"))
        X = read_matrix(self, X, reset=not hasattr(self, "classes_"))
        targets = read_announced(self, y, len(X), classes)
        weight = read_weight(self, sample_weight, len(X))
        in_loss = loss_weight(self, self.class_weight, targets, weight, portion=True)
        with one_thread_pool(X) as workers:
            if first:
                problem = self._problem(Rows(X, weight, workers, self.scaling), targets, in_loss)
                self._choose(problem, targets)
                stream = Stream(problem)
            else:
                stream = self._stream
                if self.C != "cv":
                    self.C_ = self.C
            problem = self._problem(stream.rows(X, weight, workers), targets, in_loss)
            solution = stream.add(problem, float(self.C_), self.tol, self.max_iter)
        self.classes_ = targets.classes
        self._stream: Stream = stream
        return self._set(solution, *stream.unscaled(), stream.dtype)

    def _learn(
        self, X: Array, targets: Targets, weight: Array, in_loss: Array, groups: Any = None
    ) -> Self:
        """Fit rows of `weight` (n,) in the standardisation and `in_loss` (n, 1) in the loss."""
        self.classes_ = targets.classes
        with one_thread_pool(X) as workers:
            rows = Rows(X, weight, workers, self.scaling)
            problem = self._problem(rows, targets, in_loss)
            self._choose(problem, targets, groups)
            problem = problem.on_folds()
            start = problem.start_from_sample(float(self.C_), self.tol, self.max_iter)
            solution = problem.solve(float(self.C_), start, self.tol, self.max_iter)
            return self._set(solution, *problem.unscaled(solution.x), rows.dtype)

    def _problem(self, rows: Rows, targets: Targets, in_loss: Array) -> LinearProblem:
        """Return the problem of all rows, in which two classes are one 0/1 column."""
        codes, n = targets.codes, len(targets.classes)
        self._multilabel = targets.multilabel
        self._multinomial = not self._multilabel and n > 2
        if self._multinomial:
            return LinearProblem(rows, codes, softmax_cross_entropy, n, in_loss)
        codes = codes if self._multilabel else codes[:, None]
        return LinearProblem(rows, codes, binary_cross_entropy, codes.shape[1], in_loss)

    def _set(self, solution: Solution, coef: Array, intercept: Array, dtype: Any) -> Self:
        if not solution.converged.all():
            message = f"{type(self).__name__} did not converge in max_iter={self.max_iter} passes."
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        self.coef_, self.intercept_ = coef.astype(dtype), intercept.astype(dtype)
        self.n_iter_ = solution.n_iter
        return self

    def _choose(self, problem: LinearProblem, targets: Targets, groups: Any = None) -> None:
        """Set `C_`, `path_` and `calibration_` from the folds, or defaults without scored folds."""
        self.C_ = self.C
        if self.C != "cv" and not self.calibrate:
            return
        target, in_loss = to_numpy(problem.target), to_numpy(problem.weight)
        how = (type(self).__name__, targets, groups, self.cv, self.random_state)
        fold = folds_to_choose_by(*how, problem.rows.source, in_loss.max(axis=1))
        weight, judged = in_loss.mean(axis=1) * (fold >= 0), judges(targets, fold)

        def scores(logits: Array) -> dict[str, Array]:
            if targets.multilabel:
                right = ((logits > 0) == targets.codes).mean(axis=1)
            else:
                right = chosen_codes(logits) == targets.codes
            values = {"log_loss": -log_loss_of_rows(logits, target), "accuracy": right}
            return {name: fold_means(of, fold, weight) for name, of in values.items()}

        Cs = self.Cs if self.C == "cv" and judged else [_UNTESTED_C if self.C == "cv" else self.C]
        folds, tol = problem.on_folds(fold), min(self.tol, _SEARCH_TOL)
        path = search(folds, Cs, scores, self.scoring, tol, self.max_iter)
        if self.C == "cv":
            self.C_ = path.best
            self.path_ = Bunch(C=path.C, log_loss=-path.log_loss, accuracy=path.accuracy)
        if self.calibrate:
            self.calibration_ = self._calibration(path.logits, targets.codes, weight, judged)

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_probe(self)
        check_option(owner, "scoring", self.scoring, ("log_loss", "accuracy"))
        check_int(owner, "max_iter", self.max_iter, 1)

    def _logits(self, X: Any) -> Array:
        X = read_matrix(self, X, reset=False, dispatch=True)
        return affine(X, self.coef_, self.intercept_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
