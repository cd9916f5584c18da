"""Multi-task models: a head per column of labels, for classification and regression together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier, is_regressor
from sklearn.utils import Bunch, Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from featuretl._core.parameters import parameter_error
from featuretl._core.text import printable
from featuretl._core.types import Array
from featuretl._learning.columns import Column, in_column, read_column, table_of
from featuretl._learning.groups import read_groups
from featuretl._learning.targets import read_matrix, read_weight
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.ridge import LinearProbeRegressor


def _gives_probabilities(head: MultiTaskHead) -> bool:
    heads = head.estimators_ if hasattr(head, "estimators_") else (head.heads or {}).values()
    return not heads or any(hasattr(one, "predict_proba") for one in heads)


@dataclass(eq=False, repr=False)
class MultiTaskHead(MetaEstimatorMixin, BaseEstimator):
    """Multi-task model on one embedding: a head per column of `y`, for classes and numbers.

    Each head is fitted separately, to the rows that have a label in its column; the tasks share the
    embedding and the model file. (`sklearn.multioutput.MultiOutputClassifier` takes tasks of a
    single kind and no missing labels.)

    Parameters
    ----------
    heads : dict of column to estimator, or None, default=None
        Classifiers and regressors for some columns. Any other column gets `LinearProbeClassifier`
        if it has text, True and False, categories, or at most 20 different whole numbers, and
        `LinearProbeRegressor` if it has other numbers.

    Attributes
    ----------
    tasks_ : dict of str to {"classification", "regression"}
        The tasks in the order of their columns; the columns of an array are named "0", "1", ..
    estimators_ : list of estimator
        The fitted heads in the same order; `named_estimators_` has them by name.
    decision_ : str
        A line per task: its head, the number of rows with a label, and the reason for its kind.
    ranges_ : dict of str to (float, float)
        The smallest and the largest training value of each regression.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    LinearProbeClassifier : A single task, or multi-label classification.
    TransferMultiTask : Multi-task models on images, with scores on held-out images.

    Notes
    -----
    The head of a task with missing labels standardises by the rows that have one. Fitting the heads
    takes little time compared with embedding (``benchmarks/tasks.py``).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featuretl import MultiTaskHead
    >>> X, y = load_iris(return_X_y=True)
    >>> tasks = {"species": [None, *y[1:]], "petal": X[:, 3]}
    >>> head = MultiTaskHead().fit(X[:, :3], tasks)
    >>> head.tasks_
    {'species': 'classification', 'petal': 'regression'}
    >>> print(head.decision_)
    species: LinearProbeClassifier on 149 of 150 rows (3 different whole numbers).
    petal: LinearProbeRegressor on 150 of 150 rows (numbers with a fraction).
    >>> head.predict(X[:2, :3]).round(1)
    array([[0. , 0.2],
           [0. , 0.1]])
    """

    heads: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit a head for each task.

        Parameters
        ----------
        X, sample_weight, groups : as in `LinearProbeClassifier.fit`
            For the heads that take weights, or groups.
        y : frame of pandas, polars or pyarrow, dict of n values each, or array-like (n, n_tasks)
            A column for each task. None, NaN and empty text are missing labels.

        Raises
        ------
        ParameterError, InputError
            As in `LinearProbeClassifier.fit`, with the name of the column; or if a key of `heads`
            is no column, or a value neither classifier nor regressor.
        """
        owner = type(self).__name__
        X = read_matrix(self, X)
        table = table_of(owner, y, len(X))
        by_hand = self._heads(table)
        columns = {}
        for name, values in table.items():
            columns[name] = read_column(name, values, _kind_of(by_hand.get(name)))
        given: dict[str, Any] = {}
        if sample_weight is not None:
            given["sample_weight"] = read_weight(self, sample_weight, len(X))
        if groups is not None:
            given["groups"] = read_groups(owner, groups, len(X))
        self.tasks_ = {name: column.kind for name, column in columns.items()}
        self.estimators_, self.ranges_, lines = [], {}, []
        for name, column in columns.items():
            is_class = column.kind == "classification"
            head = LinearProbeClassifier() if is_class else LinearProbeRegressor()
            head = clone(by_hand[name]) if name in by_hand else head
            with in_column(name):
                self.estimators_.append(_fit(head, X, column, given))
            if column.kind == "regression":
                self.ranges_[name] = float(column.y.min()), float(column.y.max())
            why = "as given" if name in by_hand else column.why
            rows = f"{len(column.rows):,} of {len(X):,} rows"
            lines.append(f"{printable(name)}: {type(head).__name__} on {rows} ({why}).")
        self.decision_ = "\n".join(lines)
        return self

    def predict(self, X: Any) -> Array:
        """Return the predictions (n, n_tasks): float64 if all are numbers, else object."""
        X = self._rows(X)
        columns = [head.predict(X) for head in self.estimators_]
        if all(column.dtype.kind in "iuf" for column in columns):
            return np.column_stack([column.astype(np.float64) for column in columns])
        return np.column_stack([column.astype(object) for column in columns])

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> dict[str, Array] | Array:
        """Return the probabilities (n, n_classes) of each classification: a dict by task.

        Heads that have no probabilities are left out. For a single task it is the array alone, as
        in scikit-learn's forests.
        """
        X, heads = self._rows(X), self.named_estimators_
        if len(heads) == 1:
            return self.estimators_[0].predict_proba(X)
        able = {name: head for name, head in heads.items() if hasattr(head, "predict_proba")}
        return {name: head.predict_proba(X) for name, head in able.items()}

    def score(self, X: Any, y: Any) -> float:
        """Return the mean of the scores of all tasks: accuracy or R2, at most 1.

        X and `y` are as for `fit`; each task is scored on the rows that have its label.
        """
        X = self._rows(X)
        table = table_of(type(self).__name__, y, len(X))
        missing = [name for name in self.tasks_ if name not in table]
        if missing:
            found = printable(", ".join(table))
            raise InputError(f"y must have a column {printable(missing[0])!r}; got {found}.")
        scores = []
        for name, head in self.named_estimators_.items():
            column = read_column(name, table[name], self.tasks_[name])
            scores.append(head.score(X[column.rows], column.y))
        return float(np.mean(scores))

    @property
    def classes_(self) -> dict[str, Array]:
        """The classes of each classification: dict of str to ndarray of shape (n_classes,)."""
        heads = self.named_estimators_
        classifications = [name for name, kind in self.tasks_.items() if kind == "classification"]
        return {name: heads[name].classes_ for name in classifications}

    @property
    def named_estimators_(self) -> Bunch:
        """The fitted heads by the names of their tasks."""
        check_is_fitted(self, "estimators_")
        heads = Bunch()  # no keyword arguments: a task may be called "self"
        heads.update(zip(self.tasks_, self.estimators_, strict=True))
        return heads

    def _rows(self, X: Any) -> Array:
        check_is_fitted(self, "estimators_")
        return read_matrix(self, X, reset=False)

    def _heads(self, table: dict[str, Any]) -> dict[str, Any]:
        """Return the parameter `heads` with its keys as str; raises ParameterError."""
        owner = type(self).__name__
        if self.heads is not None and not isinstance(self.heads, dict):
            raise parameter_error(owner, "heads", "None or a dict of column to head", self.heads)
        heads = {str(name): head for name, head in (self.heads or {}).items()}
        for name, head in heads.items():
            if name not in table:
                expected = f"a dict with keys among the columns {', '.join(table)}"
                raise parameter_error(owner, "heads", expected, name)
            if _kind_of(head) is None:
                expected = "a dict of classifiers and regressors"
                raise parameter_error(owner, "heads", expected, head)
        return heads

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags


def _kind_of(head: Any) -> str | None:
    """Return the kind of task of a head, None if it is neither classifier nor regressor."""
    if head is None or isinstance(head, type) or not hasattr(head, "__sklearn_tags__"):
        return None
    if is_classifier(head):
        return "classification"
    return "regression" if is_regressor(head) else None


def _fit(head: Any, X: Any, column: Column, given: dict[str, Array]) -> Any:
    """Return `head` after fitting it to the rows that have a label."""
    known = {k: v[column.rows] for k, v in given.items() if has_fit_parameter(head, k)}
    rows = X if len(column.rows) == len(X) else X[column.rows]
    return head.fit(rows, column.y, **known)
