"""Cross-validation folds and hold-out splits by unit: rows of one group, and equal rows.

A class in a single unit cannot be both trained on and held out: it is in every training set.
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
) -> Array:
    """Return the fold (n,) that holds out each row, from 0; -1 for never.

    For an int `cv`, folds are stratified and keep groups and equal rows of `X` together. Rows of
    zero weight and classes in a single unit are never held out. Raises InputError for less than two
    folds or classes to train on; warns of fewer folds than `cv` and of classes never held out.
    """
    n = len(targets.codes)
    group, random_state = read_groups(owner, groups, n), random_generator(owner, random_state)
    rows = np.arange(n) if weight is None else np.flatnonzero(weight > 0)
    kept = Targets(targets.classes, targets.codes[rows])
    if isinstance(cv, numbers.Integral):
        copies = None if X is None else copies_of(X)
        together = subset(group, rows), subset(copies, rows)
        found, messages = _folds_of_units(owner, kept, *together, int(cv), random_state)
    else:
        fold = _fold_of_splits(owner, cv, targets, groups)
        found, messages = _folds_of_splits(owner, kept, fold[rows])
    fold = np.full(n, -1)
    fold[rows] = np.unique(np.append(found, -1), return_inverse=True)[1][:-1] - 1
    if messages and not judges(targets, fold):
        only = targets.classes[targets.codes[fold >= 0][0]].item()
        how = "selected on folds of single rows" if group is not None else "left at their defaults"
        messages.append(
            f"Only class {only!r} can be held out, which is not enough to compare models: "
            f"hyperparameters are {how}."
        )
    if messages:
        warnings.warn(" ".join(messages), FeatureTLWarning, stacklevel=4)
    return fold


def folds_to_choose_by(
    owner: str, targets: Targets, groups: Any, cv: Any, random_state: Any, X: Array, weight: Array
) -> Array:
    """Return the folds of `fold_of_rows`, without groups if these would hold out a single class."""
    fold = fold_of_rows(owner, targets, groups, cv, random_state, X=X, weight=weight)
    if groups is None or not isinstance(cv, numbers.Integral) or judges(targets, fold):
        return fold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatureTLWarning)
        return fold_of_rows(owner, targets, None, cv, random_state, X=X, weight=weight)


def judges(targets: Targets, fold: Array) -> bool:
    """Return whether folds (n,) can select hyperparameters: they hold out two or more classes."""
    held = targets.codes[fold >= 0]
    return targets.multilabel or len(targets.classes) < 2 or len(np.unique(held)) > 1


def hold_out(
    n: int, strata: Array | None, units: Array | None, fraction: float, seed: int
) -> tuple[Array, Array]:
    """Return rows to train on, and about a `fraction` of n rows to hold out.

    No unit (code in `units`) is split, and every class (code in `strata`) has a training row; the
    split is stratified if possible. Raises ValueError if a part would be empty.
    """
    if units is not None and len(np.unique(units)) < n:
        strata = np.zeros(n, int) if strata is None else strata
        return _hold_out_units(strata, units, fraction, seed)
    options = {"test_size": fraction, "random_state": seed}
    splitter: Any = ShuffleSplit(1, **options)
    if strata is not None:
        sizes, n_held_out = np.unique(strata, return_counts=True)[1], int(np.ceil(fraction * n))
        if sizes.min() >= 2 and min(n_held_out, n - n_held_out) >= len(sizes):
            splitter = StratifiedShuffleSplit(1, **options)
    train, held_out = next(splitter.split(np.zeros(n), strata))
    if strata is not None:
        needed = held_out[~np.isin(strata[held_out], strata[train])]
        train, held_out = np.union1d(train, needed), np.setdiff1d(held_out, needed)
    if not len(held_out):
        raise ValueError("each of the images drawn is the only one of its class")
    return np.sort(train), np.sort(held_out)


def _hold_out_units(strata: Array, unit: Array, fraction: float, seed: int) -> tuple[Array, Array]:
    """Hold out the fold with the most classes, of about 1 / `fraction` folds of units."""
    targets = Targets(np.arange(strata.max() + 1), strata)
    units = _Units(targets, unit)
    n_folds = min(max(2, round(1 / fraction)), len(units.free))
    if n_folds < 2:
        raise ValueError(
            f"only {n_folds} groups can be held out; each other group holds all rows of a class"
        )
    fold = units.spread(targets, n_folds, np.random.RandomState(seed))[units.unit]
    held = [np.flatnonzero(fold == number) for number in range(n_folds)]
    held_out = max(held, key=lambda rows: len(np.unique(strata[rows])))
    return np.setdiff1d(np.arange(len(strata)), held_out), held_out


class _Units:
    """The unit of each row, `unit` (n,), and `counts` (n_units, n_values) of rows by value.

    The values are those of `_values`. `holders` (n_values,) counts the units that hold each value;
    `always` are the units that hold all of a value, always trained on, and `free` the others.
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
        """Return the fold (n_units,) of each unit, -1 for units that are always trained on."""
        fold = np.full(self.counts.shape[0], -1)
        if len(fold) == len(self.unit):  # each row is a unit
            rows = np.flatnonzero(np.isin(self.unit, self.free))
            kind = KFold if targets.multilabel else StratifiedKFold
            splitter = kind(n_folds, shuffle=True, random_state=random_state)
            for number, (_, test) in enumerate(splitter.split(rows, targets.codes[rows])):
                fold[self.unit[rows[test]]] = number
        else:
            counts = self.counts.tocsr()[self.free]
            fold[self.free] = _stratify(counts, n_folds, random_state)
        return self._never_hold_all(fold)

    def _never_hold_all(self, fold: Array) -> Array:
        """Remove the smallest unit of a value from the folds if one fold holds all of the value."""
        held_by, values = self.counts.coords
        size = np.bincount(self.unit)
        while True:
            stuck = np.flatnonzero(_in_one_fold(fold[held_by], values, len(self.holders)))
            if not len(stuck) or fold.max() < 1:
                return fold
            units = held_by[values == stuck[0]]
            fold[units[size[units].argmin()]] = -1


def _values(targets: Targets) -> Any:
    """Return a sparse indicator (n, n_classes), or (n, 2 n_labels) of present and absent labels."""
    codes = targets.codes
    if targets.multilabel:
        return hstack([csr_array(codes.astype(int)), csr_array(1 - codes.astype(int))]).tocsr()
    shape = len(codes), len(targets.classes)
    return csr_array((np.ones(len(codes), int), (np.arange(len(codes)), codes)), shape=shape)


def _stratify(counts: Any, n_folds: int, rng: np.random.RandomState) -> Array:
    """Return folds (n_units,) of units, stratified by value; `counts` are (n_units, n_values)."""
    size = counts.sum(axis=1)
    part = (counts / np.maximum(counts.sum(axis=0), 1)).tocsr()
    order = rng.permutation(len(size))
    order = order[np.argsort(-part.power(2).sum(axis=1)[order], kind="stable")]
    fold, rows = np.empty(len(size), int), np.zeros(n_folds)
    held = np.zeros((n_folds, counts.shape[1]))
    for unit in order:  # it joins the fold with the least of its values, then with the fewest rows
        at = slice(part.indptr[unit], part.indptr[unit + 1])
        values, share = part.indices[at], part.data[at]
        best = np.lexsort((rows, held[:, values] @ share))[0]
        held[best, values] += share
        rows[best] += size[unit]
        fold[unit] = best
    return fold


def _folds_of_units(
    owner: str, targets: Targets, group: Any, copies: Any, cv: int, random_state: Any
) -> tuple[Array, list[str]]:
    """Return the fold (n,) of each row, and warnings; `group` and `copies` are codes or None."""
    units = _Units(targets, joined(group, copies))
    messages, noun = [], "rows" if group is None else "groups"
    if copies is not None:
        noun = "different rows" if group is None else noun
        if _possible_folds(units, targets, noun)[0] < 2:
            messages = [f"{owner} splits equal rows of X between folds, as too few rows differ."]
            units, noun = _Units(targets, group), noun.removeprefix("different ")
    possible, why = _possible_folds(units, targets, noun)
    fold = units.spread(targets, min(possible, cv), random_state) if possible > 1 else None
    if fold is None or len(np.unique(fold[fold >= 0])) < 2:
        remedy = "add data" if group is None else "pass groups that divide every class"
        raise InputError(
            f"{owner} needs at least 2 folds to cross-validate, and {why}: {remedy}, or pass a "
            "fixed C if it has one."
        )
    messages += _never_held_out(owner, targets, units.holders == 1, noun)
    if possible < cv:
        messages.append(f"{owner} uses {possible} folds instead of {cv}, because {why}.")
    return fold[units.unit], messages


def _possible_folds(units: _Units, targets: Targets, noun: str) -> tuple[int, str]:
    """Return the largest number of folds, and the reason for the limit."""
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


def _never_held_out(owner: str, targets: Targets, lone: Array, noun: str) -> list[str]:
    """Return a warning of the classes `lone` (n_values,), bool, which are never held out."""
    if targets.multilabel or not lone.any():  # rare labels are common
        return []
    names = targets.classes[lone].tolist()
    n, example = len(names), names[0]
    classes = {
        "rows": f"the only row of {n} classes (such as {example!r})",
        "different rows": f"{n} classes whose rows are all equal (such as {example!r})",
        "groups": f"{n} classes that lie in a single group (such as {example!r}), with that group",
        "splits": f"{n} classes that lie in the test part of one split (such as {example!r})",
    }[noun]
    return [f"{owner} never holds out {classes}: their scores cannot be cross-validated."]


def _fold_of_splits(owner: str, cv: Any, targets: Targets, groups: Any) -> Array:
    """Return the number (n,) of the split of `cv` that holds out each row, -1 for never."""
    n = len(targets.codes)
    fold = np.full(n, -1)
    groups = None if groups is None else group_names(groups)
    try:
        found = check_cv(cv).split(np.zeros(n), targets.codes, groups)
        splits = [(np.arange(n)[train], np.arange(n)[test]) for train, test in found]
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"cv of {owner} cannot split {n} rows ({error}).") from error
    if not any(len(test) for _, test in splits):
        raise InputError(
            f"cv of {owner} must hold out rows; its {len(splits)} splits hold out none."
        )
    for number, (train, test) in enumerate(splits):
        if (fold[test] >= 0).any() or len(train) + len(test) != n or np.isin(test, train).any():
            raise InputError(
                f"cv of {owner} must hold out each row at most once, and train on all other rows; "
                f"split {number} does not."
            )
        fold[test] = number
    return fold


def _folds_of_splits(owner: str, targets: Targets, fold: Array) -> tuple[Array, list[str]]:
    """Return `fold` (n,) with -1 for classes that a split would not train on, and warnings."""
    row, value = _values(targets).tocoo().coords
    lone = _in_one_fold(fold[row], value, len(targets.classes) * (1 + targets.multilabel))
    if not targets.multilabel and len(targets.classes) > 1:
        for number in np.unique(fold[fold >= 0]):
            left = targets.classes[np.unique(targets.codes[fold != number])].tolist()
            if len(left) < 2:
                only = f"only class {left[0]!r}" if left else "nothing"
                raise InputError(
                    f"cv of {owner} leaves {only} to train on in split {number}: pass splits whose "
                    "training sets hold every class."
                )
    fold = fold.copy()
    fold[row[lone[value]]] = -1
    return fold, _never_held_out(owner, targets, lone, "splits")


def _in_one_fold(fold: Array, value: Array, n_values: int) -> Array:
    """Return whether one `fold` (k,) holds all entries of each `value` (k,): (n_values,) bool."""
    low, high = np.full(n_values, fold.max(initial=0) + 1), np.full(n_values, -1)
    np.minimum.at(low, value, fold)
    np.maximum.at(high, value, fold)
    return (low == high) & (high >= 0)
