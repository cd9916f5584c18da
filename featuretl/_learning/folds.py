"""Which fold holds out which row: all folds are made here.

A unit is what no split may part: the rows of a group, and rows with the same content. A class that
lies in one unit cannot be held out and learned: the unit is in every training part, and in no
validation part.
"""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack
from sklearn.model_selection import (
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)

from featuretl._core.parameters import check_int, parameter_error, random_generator
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, group_names, joined, read_groups, subset
from featuretl._learning.targets import Targets
from featuretl.exceptions import FeatureTLWarning, InputError


def check_folds(owner: str, cv: Any) -> None:
    """Raise ParameterError unless `cv` is an int >= 2, a splitter or an iterable of splits."""
    if isinstance(cv, numbers.Number):
        check_int(owner, "cv", cv, 2)
    elif isinstance(cv, str) or not (hasattr(cv, "split") or hasattr(cv, "__iter__")):
        expected = "an int >= 2, a splitter or an iterable of (train, test) rows"
        raise parameter_error(owner, "cv", expected, cv)


def fold_of_rows(
    owner: str,
    targets: Targets,
    groups: Any,
    cv: Any,
    random_state: Any,
    *,
    X: Array | None = None,
    weight: Array | None = None,
) -> tuple[Array, int]:
    """Return the fold (n,) in which each row is held out, -1 for never, and the number of folds.

    No fold is empty, and no training part lacks a class. With a number as `cv`, rows of one group,
    and equal rows of `X`, share a fold, and classes are spread evenly; a class in one unit is always
    trained on and never held out. Rows that weigh nothing are not held out. Raises InputError if no
    two folds can be made, or a splitter's training part has a single class; warns once if there are
    fewer folds than requested, or a class cannot be held out and learned.
    """
    n = len(targets.codes)
    group, random_state = read_groups(owner, groups, n), random_generator(owner, random_state)
    rows = np.arange(n) if weight is None else np.flatnonzero(weight > 0)
    kept = Targets(targets.classes, targets.codes[rows])
    if isinstance(cv, numbers.Integral):
        copies = None if X is None else copies_of(X)
        together = subset(group, rows), subset(copies, rows)
        found, said = _folds_of_units(owner, kept, together, int(cv), random_state)
    else:
        splits = _splits(owner, cv, targets, groups)
        found, said = _folds_of_splits(owner, kept, _fold_of_splits(owner, splits, n)[rows])
    fold = np.full(n, -1)
    fold[rows] = np.unique(np.append(found, -1), return_inverse=True)[1][:-1] - 1
    if said and not judges(targets, fold):
        only = targets.classes[targets.codes[fold >= 0][0]].item()
        how = "on folds of single rows" if group is not None else "by default"
        said.append(
            f"Only class {only!r} can be held out: too little to judge by, and what must be chosen is "
            f"chosen {how}."
        )
    if said:
        warnings.warn(" ".join(said), FeatureTLWarning, stacklevel=4)
    return fold, int(fold.max()) + 1


def folds_to_choose_by(
    owner: str, targets: Targets, groups: Any, cv: Any, random_state: Any, X: Array, weight: Array
) -> tuple[Array, int]:
    """Return the folds of `fold_of_rows`; where these hold out one class only, folds of single rows."""
    found = fold_of_rows(owner, targets, groups, cv, random_state, X=X, weight=weight)
    if groups is None or not isinstance(cv, numbers.Integral) or judges(targets, found[0]):
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatureTLWarning)
        return fold_of_rows(owner, targets, None, cv, random_state, X=X, weight=weight)


def judges(targets: Targets, fold: Array) -> bool:
    """Return whether a choice can be judged on folds: they hold out rows of two classes or more."""
    held = targets.codes[fold >= 0]
    return targets.multilabel or len(targets.classes) < 2 or len(np.unique(held)) > 1


def hold_out(
    n: int, strata: Array | None, units: Array | None, fraction: float, seed: int
) -> tuple[Array, Array]:
    """Return rows to train on and rows to judge by: a `fraction` of n rows, about, where in units.

    A unit (number in `units`) stays on one side, and every class (number in `strata`) has a row to
    train on. Classes are spread evenly where there is enough of each. Raises ValueError if either
    part is empty.
    """
    if units is not None and len(np.unique(units)) < n:
        return _hold_out_units(
            np.zeros(n, int) if strata is None else strata, units, fraction, seed
        )
    options = {"test_size": fraction, "random_state": seed}
    splitter: Any = ShuffleSplit(1, **options)
    if strata is not None:
        sizes, judged = np.unique(strata, return_counts=True)[1], int(np.ceil(fraction * n))
        if sizes.min() >= 2 and min(judged, n - judged) >= len(sizes):
            splitter = StratifiedShuffleSplit(1, **options)
    train, held_out = next(splitter.split(np.zeros(n), strata))
    if strata is not None:
        needed = held_out[~np.isin(strata[held_out], strata[train])]
        train, held_out = np.union1d(train, needed), np.setdiff1d(held_out, needed)
    if not len(held_out):
        raise ValueError("each of the images drawn is the only one of its class")
    return np.sort(train), np.sort(held_out)


def _hold_out_units(strata: Array, unit: Array, fraction: float, seed: int) -> tuple[Array, Array]:
    """Return the same by one of as many folds as the fraction makes: that of the most classes."""
    targets = Targets(np.arange(strata.max() + 1), strata)
    units = _Units(targets, unit)
    n_folds = min(max(2, round(1 / fraction)), len(units.free))
    if n_folds < 2:
        raise ValueError(f"only {n_folds} groups can be held out, the others hold all of a class")
    fold = units.spread(targets, n_folds, np.random.RandomState(seed))[units.unit]
    held = [np.flatnonzero(fold == number) for number in range(n_folds)]
    held_out = max(held, key=lambda rows: len(np.unique(strata[rows])))
    return np.setdiff1d(np.arange(len(strata)), held_out), held_out


class _Units:
    """The `unit` (n,) of each row, and the rows of each value in each unit: `counts` (units, values).

    Values are classes, or each label with and without. `holders` (values,) is the number of units
    that hold each value; `always` are the units that are always trained on, as a value lies in them
    alone, and `free` the others.
    """

    def __init__(self, targets: Targets, unit: Array | None) -> None:
        n = len(targets.codes)
        self.unit = np.arange(n) if unit is None else np.unique(unit, return_inverse=True)[1]
        member = csr_array((np.ones(n, int), (self.unit, np.arange(n))))
        self.counts = (member @ _values(targets)).tocoo()
        held_by, values = self.counts.coords
        self.holders = np.bincount(values, minlength=self.counts.shape[1])
        self.always = np.unique(held_by[self.holders[values] == 1])
        self.free = np.setdiff1d(np.arange(self.counts.shape[0]), self.always)

    def spread(self, targets: Targets, n_folds: int, random_state: Any) -> Array:
        """Return the fold of each unit, -1 for those that are always trained on."""
        fold = np.full(self.counts.shape[0], -1)
        if len(fold) == len(self.unit):  # every row for itself
            rows = np.flatnonzero(np.isin(self.unit, self.free))
            kind = KFold if targets.multilabel else StratifiedKFold
            splitter = kind(n_folds, shuffle=True, random_state=random_state)
            for number, (_, test) in enumerate(splitter.split(rows, targets.codes[rows])):
                fold[self.unit[rows[test]]] = number
        else:
            counts = self.counts.tocsr()[self.free]
            fold[self.free] = _spread(counts, n_folds, random_state)
        return self._released(fold)

    def _released(self, fold: Array) -> Array:
        """Take a unit out of a fold that holds all of a value, so that it is trained on."""
        held_by, values = self.counts.coords
        size = np.bincount(self.unit)
        while True:
            stuck = np.flatnonzero(_in_one_fold(fold[held_by], values, len(self.holders)))
            if not len(stuck) or fold.max() < 1:
                return fold
            units = held_by[values == stuck[0]]
            fold[units[size[units].argmin()]] = -1


def _values(targets: Targets) -> Any:
    """Return which class each row has, (n, classes), or which label it has or lacks, sparse."""
    codes = targets.codes
    if targets.multilabel:
        return hstack([csr_array(codes.astype(int)), csr_array(1 - codes.astype(int))]).tocsr()
    shape = len(codes), len(targets.classes)
    return csr_array((np.ones(len(codes), int), (np.arange(len(codes)), codes)), shape=shape)


def _spread(counts: Any, n_folds: int, rng: np.random.RandomState) -> Array:
    """Return a fold (u,) for each unit of `counts` (u, values): an even part of each value to each.

    The largest units choose first, the fold that has least of what they hold; of equal ones the
    smallest. So none stays empty.
    """
    size = counts.sum(axis=1)
    part = (counts / np.maximum(counts.sum(axis=0), 1)).tocsr()
    order = rng.permutation(len(size))
    order = order[np.argsort(-part.power(2).sum(axis=1)[order], kind="stable")]
    fold, rows = np.empty(len(size), int), np.zeros(n_folds)
    held = np.zeros((n_folds, counts.shape[1]))
    for unit in order:
        at = slice(part.indptr[unit], part.indptr[unit + 1])
        values, share = part.indices[at], part.data[at]
        best = np.lexsort((rows, held[:, values] @ share))[0]
        held[best, values] += share
        rows[best] += size[unit]
        fold[unit] = best
    return fold


def _folds_of_units(
    owner: str,
    targets: Targets,
    together: tuple[Array | None, Array | None],
    cv: int,
    random_state: Any,
) -> tuple[Array, list[str]]:
    """Return the fold of each row, and what a warning must say; `together` are groups and copies."""
    group, copies = together
    units = _Units(targets, joined(group, copies))
    said, noun = [], "rows" if group is None else "groups"
    if copies is not None:
        noun = "different rows" if group is None else noun
        if _possible_folds(units, targets, noun)[0] < 2:
            said = [f"{owner} holds out equal rows of X apart, as too few rows differ."]
            units, noun = _Units(targets, group), noun.removeprefix("different ")
    possible, why = _possible_folds(units, targets, noun)
    fold = units.spread(targets, min(possible, cv), random_state) if possible > 1 else None
    if fold is None or len(np.unique(fold[fold >= 0])) < 2:
        remedy = "give more data" if group is None else "give groups that part every class"
        raise InputError(
            f"{owner} needs at least 2 folds to cross-validate, and {why}: {remedy}, or a fixed C "
            "where there is one."
        )
    said += _said_of_lone(owner, targets, units.holders == 1, noun)
    if possible < cv:
        said.append(f"{owner} uses {possible} folds instead of {cv}, because {why}.")
    return fold[units.unit], said


def _possible_folds(units: _Units, targets: Targets, noun: str) -> tuple[int, str]:
    """Return how many folds there can be, and why no more."""
    n, free = units.counts.shape[0], len(units.free)
    limits = [(free, f"only {free} {noun} can be held out")]
    if noun == "groups" and (free == n or n == 1):
        limits = [(free, f"groups has {n} different values")]
    elif noun == "groups" and not free:
        limits = [(0, f"each of the {n} groups holds all of a class")]
    if targets.multilabel:
        return limits[0]
    held_by, values = units.counts.coords
    sizes = np.bincount(targets.codes, minlength=len(targets.classes))
    sizes[sizes == 0] = len(targets.codes) + 1
    sizes[values[np.isin(held_by, units.always)]] = len(targets.codes) + 1  # always trained on
    small = targets.classes.tolist()[sizes.argmin()]
    limits.append((int(sizes.min()), f"class {small!r} has {sizes.min()} rows"))
    return min(limits, key=lambda limit: limit[0])


def _said_of_lone(owner: str, targets: Targets, lone: Array, noun: str) -> list[str]:
    """Return what to say of classes that are never held out: `lone` (values,) of `_values`."""
    if targets.multilabel or not lone.any():  # of labels, many are rare
        return []
    names = targets.classes[lone].tolist()
    many, example = len(names), names[0]
    held = {
        "rows": f"the only row of {many} classes (such as {example!r})",
        "different rows": f"{many} classes whose rows are all equal (such as {example!r})",
        "groups": f"{many} classes that lie in a single group (such as {example!r}), with that group",
        "splits": f"{many} classes that lie in the test part of one split (such as {example!r})",
    }[noun]
    return [f"{owner} never holds out {held}: their scores cannot be cross-validated."]


def _splits(owner: str, cv: Any, targets: Targets, groups: Any) -> list[tuple[Array, Array]]:
    """Return the splits of a splitter, or of an iterable of them, as rows."""
    n = len(targets.codes)
    if groups is not None:
        groups = group_names(groups)
    try:
        found = check_cv(cv).split(np.zeros(n), targets.codes, groups)
        splits = [(np.arange(n)[train], np.arange(n)[test]) for train, test in found]
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"cv of {owner} cannot split {n} rows ({error}).") from error
    if not any(len(test) for _, test in splits):
        raise InputError(
            f"cv of {owner} must hold out rows; its {len(splits)} splits hold out none."
        )
    return splits


def _fold_of_splits(owner: str, splits: list[tuple[Array, Array]], n: int) -> Array:
    fold = np.full(n, -1)
    for number, (train, test) in enumerate(splits):
        if (fold[test] >= 0).any() or len(train) + len(test) != n or np.isin(test, train).any():
            raise InputError(
                f"cv of {owner} must hold out a row once at most and train on all other rows; "
                f"split {number} does not."
            )
        fold[test] = number
    return fold


def _folds_of_splits(owner: str, targets: Targets, fold: Array) -> tuple[Array, list[str]]:
    """Return `fold` (n,) without the rows of classes that a split leaves nothing of to train on."""
    row, value = _values(targets).tocoo().coords
    lone = _in_one_fold(fold[row], value, len(targets.classes) * (1 + targets.multilabel))
    if not targets.multilabel and len(targets.classes) > 1:
        for number in np.unique(fold[fold >= 0]):
            left = np.unique(targets.codes[fold != number])
            if len(left) < 2:
                only = (
                    f"only class {targets.classes[left].tolist()[0]!r}" if len(left) else "nothing"
                )
                raise InputError(
                    f"cv of {owner} leaves {only} to train on in split {number}: give splits whose "
                    "training parts hold every class."
                )
    fold = fold.copy()
    fold[row[lone[value]]] = -1
    return fold, _said_of_lone(owner, targets, lone, "splits")


def _in_one_fold(fold: Array, value: Array, n_values: int) -> Array:
    """Return for each value (n_values,) whether all its entries (e,) are held out in one fold."""
    low, high = np.full(n_values, fold.max(initial=0) + 1), np.full(n_values, -1)
    np.minimum.at(low, value, fold)
    np.maximum.at(high, value, fold)
    return (low == high) & (high >= 0)
