"""Validation of what estimators are fitted on: X, y as class codes, and sample weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from featuretl._core.parameters import is_number, is_word, parameter_error
from featuretl._core.types import Array
from featuretl._learning.arrays import is_dispatched, is_on_cpu, library_of, to_numpy
from featuretl._learning.labels import all_labels, codes_of, codes_of_sets, is_label_sets
from featuretl._learning.refit import forget
from featuretl._learning.sharded import ShardedMatrix
from featuretl.exceptions import InputError

_OR_SEMI_SUPERVISED = (
    ", or use SemiSupervisedProbeClassifier, which also learns from rows without a label"
)
_NOT_ANNOUNCED = "the first partial_fit did not announce"


class Targets(NamedTuple):
    """`codes` (n,) are positions in `classes`; multi-label `codes` (n, n_labels) are 0 and 1."""

    classes: Array
    codes: Array

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels."""
        return self.codes.ndim == 2


class ScoreMixin(ClassifierMixin):
    """A classifier whose `score` accepts the same labels as its `fit`."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy; for multi-label `y`, the fraction of rows with all labels correct.

        Every row of X needs its true label in `y`; `sample_weight` are weights of the rows, (n,).
        """
        owner = type(self).__name__
        y = all_labels(owner, y)
        if is_label_sets(y):
            y = codes_of_sets(owner, y, self.classes_)
        predicted, weight = to_numpy(self.predict(X)), to_numpy(sample_weight)
        with config_context(array_api_dispatch=False):
            return float(accuracy_score(y, predicted, sample_weight=weight))


def read_matrix(
    estimator: Any, X: Any, *, reset: bool = True, min_rows: int = 1, dispatch: bool = False
) -> Array:
    """Return X (n, d) in its float dtype, without a copy if possible; see `as_matrix` for `reset`.

    With `dispatch`, a tensor stays one if scikit-learn's array API dispatch is on; to be fitted on
    (`reset`), one in main memory becomes an array of the same memory, which is faster. Blocks check
    finiteness later: a check of all of X would make a mask of its size.
    """
    if isinstance(X, ShardedMatrix):
        read_matrix(estimator, X[:min_rows], reset=reset, min_rows=min_rows)
        return X  # type: ignore[return-value]  # callers read it in blocks
    dtypes = np.float64, np.float32, np.float16
    options = {"dtype": dtypes, "ensure_all_finite": False, "ensure_min_samples": min_rows}
    if dispatch and is_dispatched(X) and not (reset and is_on_cpu(X)):
        # These checks need the shape only.
        as_matrix(estimator, np.broadcast_to(np.float32(0), X.shape), reset=reset, **options)
        is_float = X.is_floating_point() and X.element_size() > 1
        return X.detach() if is_float else X.detach().to(library_of(X).float64)
    return as_matrix(estimator, X, reset=reset, **options)


def as_matrix(estimator: Any, X: Any, *, reset: bool = True, **options: Any) -> Array:
    """Return X (n, d), validated, in NumPy; with `reset` for a new fit, else for a fitted one."""
    if reset:
        forget(estimator)
    else:
        check_is_fitted(estimator)
    with config_context(array_api_dispatch=False):
        return validate_data(estimator, to_numpy(X), reset=reset, **options)


def read_targets(estimator: Any, y: Any, n: int, *, multilabel: bool = True) -> Targets:
    """Return classes and codes of `y`: labels (n,), indicator (n, n_labels) or n label lists.

    Raises InputError if `y` is multi-label and `multilabel` is False.
    """
    owner, y = type(estimator).__name__, _read_labels(estimator, y, n, multilabel)
    if is_label_sets(y):
        binarizer = MultiLabelBinarizer().fit(y)
        if not len(binarizer.classes_):
            raise InputError(f"y of {owner} must hold labels; got empty lists only.")
        return Targets(np.asarray(binarizer.classes_), binarizer.transform(y))
    if y.ndim == 2:
        return Targets(np.arange(y.shape[1]), y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        only = classes.tolist()[0]
        raise InputError(
            f"y must have at least 2 classes for {owner}; got only one class, {only!r}."
        )
    return Targets(classes, codes)


def read_announced(
    estimator: Any, y: Any, n: int, classes: Any, *, multilabel: bool = True
) -> Targets:
    """Return the classes passed to the first `partial_fit`, and the codes of `y` in these."""
    owner, known = type(estimator).__name__, getattr(estimator, "classes_", None)
    if known is None and classes is None:
        raise InputError(
            f"The first partial_fit of {owner} needs classes, the list of all classes; got None."
        )
    found = np.asarray(known) if classes is None else read_classes(owner, classes)
    if known is not None and not np.array_equal(found, known):
        raise InputError(
            f"classes={classes!r} is not the same as on last call to partial_fit of {owner}, "
            f"{known.tolist()}."
        )
    if len(found) < 2:
        raise InputError(f"{owner} needs at least 2 classes; got {found.tolist()}.")
    y = _read_labels(estimator, y, n, multilabel)
    if is_label_sets(y):
        return Targets(found, codes_of_sets(owner, y, found, unknown=_NOT_ANNOUNCED))
    if y.ndim == 1:
        return Targets(found, codes_of(owner, y, found, unknown=_NOT_ANNOUNCED))
    if y.shape[1] != len(found):
        raise InputError(
            f"y of {owner} must have a column for each of the {len(found)} classes; got "
            f"{y.shape[1]}."
        )
    return Targets(found, y)


def read_classes(owner: str, classes: Any) -> Array:
    """Return the distinct `classes` of a `partial_fit`, sorted."""
    return np.unique(all_labels(owner, classes, "classes"))


def _read_labels(estimator: Any, y: Any, n: int, multilabel: bool) -> Array:
    """Return `y` as labels (n,), sets of labels (n,), or an indicator (n, n_labels), uint8."""
    owner = type(estimator).__name__
    y = all_labels(owner, y, instead=_OR_SEMI_SUPERVISED)
    check_length(n, "y", len(y))
    if not is_label_sets(y):
        try:
            kind = type_of_target(y, input_name="y", raise_unknown=True)
            check_classification_targets(y)
            if kind != "multilabel-indicator":
                return column_or_1d(y, warn=True)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"y of {owner} must hold classes. {reason}") from error
        if not np.isin(y, (0, 1)).all():
            raise InputError(f"y of {owner} must hold 0 and 1 if it is two-dimensional.")
        y = y.astype(np.uint8)
    if not multilabel:
        raise InputError(f"{owner} needs one class per row; got multi-label y.")
    return y


def read_weight(estimator: Any, sample_weight: Any, n: int) -> Array:
    """Return weights (n,), float64; ones if `sample_weight` is None."""
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(to_numpy(sample_weight), dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n, float(weight))
    if weight.ndim != 1:
        raise InputError(f"Sample weights must be 1D array or scalar; got shape {weight.shape}.")
    check_length(n, "sample_weight", len(weight))
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise InputError(
            f"sample_weight of {type(estimator).__name__} must be finite, >= 0 and not all zero."
        )
    return weight


def loss_weight(
    estimator: Any, class_weight: Any, targets: Targets, weight: Array, portion: bool = False
) -> Array:
    """Return sample weights times class weights, (n, 1) or (n, n_labels).

    Raises InputError for a single class, unless the rows are a `portion` of the data.
    """
    owner, (classes, codes) = type(estimator).__name__, targets
    is_balanced = is_word(class_weight, "balanced")
    if targets.multilabel:
        if class_weight is not None and not is_balanced:
            raise InputError(
                f"class_weight of {owner} must be None or 'balanced' when y is multi-label; got "
                f"{class_weight!r}."
            )
        columns = [_balanced(of, weight, 2) if is_balanced else weight for of in codes.T]
        return np.column_stack(columns)
    if not portion and len(np.unique(codes[weight > 0])) < 2:
        raise InputError(
            f"y must have at least 2 classes with a positive sample_weight for {owner}; got one "
            "class."
        )
    if is_balanced:
        return _balanced(codes, weight, len(classes))[:, None]
    return (weight * _class_factors(owner, class_weight, classes)[codes])[:, None]


def _balanced(codes: Array, weight: Array, n_classes: int) -> Array:
    """Return weights (n,) with equal sums for the classes of `codes` (n,), and the sum unchanged."""
    size = np.bincount(codes, weight, minlength=n_classes)
    factors = weight.sum() / (np.count_nonzero(size) * np.where(size > 0, size, np.inf))
    return weight * factors[codes]


def _class_factors(owner: str, class_weight: Any, classes: Array) -> Array:
    """Return the factors of `classes` (c,): 1 for those that are not in `class_weight`."""
    named = {} if class_weight is None else class_weight
    is_dict = isinstance(named, Mapping)
    if not is_dict or not all(is_number(factor, "[0, inf)") for factor in named.values()):
        expected = "None, 'balanced', or a dict of classes to numbers >= 0"
        raise parameter_error(owner, "class_weight", expected, class_weight)
    known = set(classes.tolist())
    if not known <= set(named) and not set(named) <= known:  # as in scikit-learn
        expected = f"a dict of classes in y, {classes.tolist()}"
        raise parameter_error(owner, "class_weight", expected, class_weight)
    return np.array([float(named.get(name, 1.0)) for name in classes.tolist()])


def check_length(n: int, name: str, length: int) -> None:
    """Raise InputError unless the `length` of `name` is the number n of rows of X."""
    if length != n:
        raise InputError(f"{name} must have one entry per row of X; got {length} for {n} rows.")
