"""Which fold holds out which row: stratified, grouped, and smaller when a class is small."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)

from featuretl._validation import check_int, parameter_error
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads._targets import Targets, check_length

Array = np.ndarray[Any, Any]


def check_folds(owner: str, cv: Any) -> None:
    """Raise ParameterError unless `cv` is an int >= 2, a splitter or an iterable of splits."""
    if isinstance(cv, numbers.Number):
        check_int(owner, "cv", cv, 2)
    elif isinstance(cv, str) or not (hasattr(cv, "split") or hasattr(cv, "__iter__")):
        expected = "an int >= 2, a splitter or an iterable of (train, test) rows"
        raise parameter_error(owner, "cv", expected, cv)


def fold_of_rows(
    owner: str, targets: Targets, groups: Any, cv: Any, random_state: Any
) -> tuple[Array, int]:
    """Return the fold (n,) in which each row is held out, -1 for never, and the number of folds.

    With a number as `cv`, rows of one group share a fold, and classes are spread evenly (labels of
    multi-label targets are not); a class with one row is always trained on and never held out.

    Raises
    ------
    InputError
        If no two folds can be made.

    Warns
    -----
    FeatureTLWarning
        If there are fewer folds than asked for, or a class cannot be held out and learned.
    """
    n = len(targets.codes)
    if groups is not None:
        groups = np.asarray(groups)
        check_length(n, "groups", len(groups))
    if not isinstance(cv, numbers.Integral):
        splits = check_cv(cv).split(np.zeros(n), targets.codes, groups)
        return _fold_of_splits(owner, list(splits), n)
    rows = np.arange(n)
    n_folds = int(cv)
    if not targets.multilabel and groups is None:
        rows = _rows_of_repeated_classes(owner, targets)
    possible, why = _possible_folds(targets, rows, groups)
    if possible < 2:
        raise InputError(
            f"{owner} needs at least 2 folds to cross-validate, and {why}: give more data, or a "
            "fixed C where there is one."
        )
    if possible < n_folds:
        message = f"{owner} uses {possible} folds instead of {n_folds}, because {why}."
        warnings.warn(message, FeatureTLWarning, stacklevel=3)
        n_folds = possible
    fold = np.full(n, -1)
    splitter = _splitter(targets.multilabel, groups is not None, n_folds, random_state)
    held = None if groups is None else groups[rows]
    for number, (_, test) in enumerate(splitter.split(rows, targets.codes[rows], held)):
        fold[rows[test]] = number
    return fold, n_folds


def _fold_of_splits(owner: str, splits: list[tuple[Array, Array]], n: int) -> tuple[Array, int]:
    fold = np.full(n, -1)
    for number, (train, test) in enumerate(splits):
        if (fold[test] >= 0).any() or len(train) + len(test) != n or np.isin(test, train).any():
            raise InputError(
                f"cv of {owner} must hold out a row once at most and train on all other rows; "
                f"split {number} does not."
            )
        fold[test] = number
    return fold, len(splits)


def _rows_of_repeated_classes(owner: str, targets: Targets) -> Array:
    sizes = np.bincount(targets.codes)
    single = targets.classes[sizes == 1]
    if len(single) and len(single) < len(sizes):
        message = (
            f"{owner} never holds out the only row of {len(single)} classes (such as "
            f"{single.tolist()[0]!r}): their scores cannot be cross-validated."
        )
        warnings.warn(message, FeatureTLWarning, stacklevel=4)
    return np.flatnonzero(sizes[targets.codes] > 1)


def _possible_folds(targets: Targets, rows: Array, groups: Array | None) -> tuple[int, str]:
    if groups is not None:
        n_groups = len(np.unique(groups))
        limits = [(n_groups, f"groups has {n_groups} different values")]
    else:
        limits = [(len(rows), f"only {len(rows)} rows can be held out")]
    if not targets.multilabel and len(rows):
        sizes = np.bincount(targets.codes[rows], minlength=len(targets.classes))
        sizes = np.where(sizes > 0, sizes, len(rows) + 1)
        small = targets.classes.tolist()[sizes.argmin()]
        limits.append((int(sizes.min()), f"class {small!r} has {sizes.min()} rows"))
    return min(limits)


def _splitter(multilabel: bool, grouped: bool, n_folds: int, random_state: Any) -> Any:
    kinds = {
        (False, False): StratifiedKFold,
        (False, True): StratifiedGroupKFold,
        (True, False): KFold,
        (True, True): GroupKFold,
    }
    kind = kinds[multilabel, grouped]
    return kind(n_folds, shuffle=True, random_state=random_state)
