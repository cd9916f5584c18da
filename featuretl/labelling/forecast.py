"""forecast_accuracy: the accuracy with more labels, by a power law fitted to a learning curve."""

from __future__ import annotations

import math
import numbers
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from featuretl._core.display import Display
from featuretl._core.parameters import (
    check_estimator_parameter,
    check_int,
    check_number,
    parameter_error,
    random_generator,
)
from featuretl._core.statistics import CONFIDENCE, interval_of_share
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl._learning.labels import one_label_each
from featuretl._learning.rows import finite_matrix
from featuretl._learning.targets import check_length
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier

_OWNER = "forecast_accuracy"
_MIN_LABELS, _MIN_GROUPS = 20, 5
_SIZES = 7
_MAX_TRAINING_FRACTION = 0.8
_EXPONENTS = np.geomspace(0.1, 2, 40)
_DRAWS = 500
_HORIZON = 10  # forecasts are limited to this multiple of the present labels


class Estimate(NamedTuple):
    """A number, and the limits of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(eq=False, frozen=True, repr=False)
class AccuracyForecast(Display):
    """A learning curve ``1 - accuracy = a (n / n_labels)^-b + c``, from `forecast_accuracy`.

    Attributes
    ----------
    n_labels : int
        The present number of labels.
    sizes : ndarray of shape (m,), int
        Numbers of training labels.
    accuracies, errors : ndarray of shape (m,), float64
        Mean accuracy on the other labelled rows, and its standard error.
    law, draws : ndarray of shape (3,) and (500, 3), float64
        a, b and c, and those of bootstrap resamples.
    group_sizes : ndarray of shape (n_groups,), int
        Number of labelled rows in each group; without groups, each row is a group.
    """

    n_labels: int
    sizes: Array
    accuracies: Array
    errors: Array
    law: Array
    draws: Array
    group_sizes: Array

    def _facts(self) -> dict[str, Any]:
        sizes = (self.n_labels, 2 * self.n_labels, _HORIZON * self.n_labels)
        at = {f"{n:,} labels": self.accuracy_at(n) for n in sizes}
        return {n: "accuracy {:.3f} ({:.3f} to {:.3f})".format(*found) for n, found in at.items()}

    def accuracy_at(self, n: int) -> Estimate:
        """Return the expected accuracy with `n` labels, and its 95% interval.

        Raises ParameterError unless `n` is an int from 1 to ten times `n_labels`.
        """
        most = _HORIZON * self.n_labels
        if not isinstance(n, numbers.Integral) or isinstance(n, bool) or not 1 <= n <= most:
            expected = f"an int from 1 to {most}, ten times the number of labels"
            raise parameter_error("accuracy_at", "n", expected, n)
        return self._estimate(float(n))

    def labels_needed(self, target_accuracy: float) -> Estimate:
        """Return the total number of labels for a target accuracy, and its 95% interval.

        Infinity stands for more than ten times `n_labels`, or for an unreachable accuracy. Raises
        ParameterError unless `target_accuracy`, on images like the labelled ones, is in (0, 1).
        """
        check_number("labels_needed", "target_accuracy", target_accuracy, "(0, 1)")
        sizes = range(1, _HORIZON * self.n_labels + 1)

        def reached(limit: int) -> float:
            place = bisect_left(sizes, target_accuracy, key=lambda n: self._estimate(n)[limit])
            return float(sizes[place]) if place < len(sizes) else math.inf

        return Estimate(reached(0), reached(2), reached(1))  # the upper limit reaches it first

    def sentence(self, target_accuracy: float) -> str:
        """Return the result of `labels_needed` as a sentence."""
        value, low, high = self.labels_needed(target_accuracy)
        most = f"{_HORIZON * self.n_labels:,}"
        now = self.accuracy_at(self.n_labels)
        start = (
            f"{self.n_labels:,} labels give an accuracy of {now.value:.3f} "
            f"({now.low:.3f} to {now.high:.3f}); {target_accuracy:g} "
        )
        if math.isinf(low):
            return f"{start}is not reached with {most} labels, by this forecast."
        between = f"at least {low:,.0f}" if math.isinf(high) else f"{low:,.0f} to {high:,.0f}"
        if math.isinf(value):
            return f"{start}needs more than {most} labels ({between})."
        return f"{start}needs {value:,.0f} labels in all ({between})."

    def _estimate(self, n: float) -> Estimate:
        """Return the accuracy with n labels; its interval is at least as wide as a proportion's."""
        value, drawn = float(self._accuracies(self.law, n)), self._accuracies(self.draws, n)
        tails = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        # Close to an accuracy of 1, resamples hardly differ and their interval would be too narrow.
        low, high = interval_of_share(value, float(drawn.std()), CONFIDENCE, self.group_sizes)
        return Estimate(value, float(min(low, tails[0])), float(max(high, tails[1])))

    def _accuracies(self, law: Array, n: float) -> Array:
        accuracy: Array = 1 - law[..., 0] * (n / self.n_labels) ** -law[..., 1] - law[..., 2]
        return np.clip(accuracy, 0, 1)


def forecast_accuracy(
    X: Any,
    y: Any,
    groups: Any = None,
    *,
    estimator: Any = None,
    n_repeats: int = 10,
    random_state: Any = None,
) -> AccuracyForecast:
    """Forecast the accuracy with more labels, from the learning curve of the present labels.

    The function trains heads on parts of the labelled rows, scores them on the others, and fits a
    power law to their errors (Cortes et al., NIPS 1993; Figueroa et al. 2012,
    doi:10.1186/1472-6947-12-8). The forecast holds only for images like the labelled ones: images
    selected for labelling, such as by `suggest_labels`, are easier or harder than random ones.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings of at least 20 labelled images; finite.
    y : array-like of shape (n,)
        Their classes.
    groups : array-like of shape (n,), default=None
        Rows of one group (a patient, a signer), and equal rows of X, are not split.
    estimator : classifier, default=None
        The head; None is `LinearProbeClassifier()`.
    n_repeats : int >= 2, default=10
        The number of random orders in which rows are added.
    random_state : int, RandomState or None, default=None
        Seed of the orders, and of the resamples of the interval.

    Raises
    ------
    ParameterError, InputError
        If a parameter has an invalid value, X has NaN, lengths differ, or there are too few labels,
        groups or classes.

    Notes
    -----
    The interval is that of the mean accuracy on all images like these. The power law, with
    a, c >= 0 and b from 0.1 to 2, is fitted to 500 resamples of groups (rows, without groups) and
    orders, by least squares with inverse-variance weights. The interval is at least as wide as that
    of a proportion with the same standard error (`metrics_report`). `benchmarks/labelling.py
    forecast` and, near 1, `benchmarks/intervals.py forecast` measure its coverage.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featuretl import NearestMeanClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> found = forecast_accuracy(
    ...     X[::12], y[::12], estimator=NearestMeanClassifier(), n_repeats=5, random_state=0
    ... )
    >>> round(found.accuracy_at(1500).value, 2)
    0.94
    >>> print(found.sentence(0.95))  # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
    150 labels give an accuracy of 0.901 (0.82... to 0.95...); 0.95 needs more than 1,500 labels
    (at least 14...).
    """
    check_int(_OWNER, "n_repeats", n_repeats, 2)
    X, y = finite_matrix(f"X of {_OWNER}", X), one_label_each(_OWNER, y)
    group = _checked_groups(X, y, groups)
    rng = random_generator(_OWNER, random_state)
    check_estimator_parameter(_OWNER, "estimator", estimator)
    head = LinearProbeClassifier() if estimator is None else estimator
    n_classes, most = len(np.unique(y)), int(_MAX_TRAINING_FRACTION * len(y))
    least = min(max(2 * n_classes, len(y) // 16), most // 2)
    sizes = np.unique(np.geomspace(least, most, _SIZES).astype(int))
    wrong, seen = _measure(X, y, group, sizes, head, n_repeats, rng)
    rate = wrong.sum(axis=(1, 2)) / seen.sum(axis=(1, 2))
    drawn = _resampled(wrong, seen, rng)
    weight = 1 / np.maximum(drawn.var(axis=0), (0.1 / len(y)) ** 2)
    relative = sizes / len(y)
    law = _power_laws(relative, rate[None], weight)[0]
    draws = _power_laws(relative, drawn, weight)
    errors, group_sizes = drawn.std(axis=0), np.bincount(group)
    return AccuracyForecast(len(y), sizes, 1 - rate, errors, law, draws, group_sizes)


def _checked_groups(X: Array, y: Array, groups: Any) -> Array:
    """Return group codes (n,); raises InputError if there are too few rows, classes or groups."""
    check_length(len(X), "y", len(y))
    given = read_groups(_OWNER, groups, len(X))
    group = joined(given, copies_of(X))
    if group is None or len(np.unique(group)) < _MIN_GROUPS:  # too few distinct rows
        group = np.arange(len(y)) if given is None else given
    group = np.unique(group, return_inverse=True)[1]
    n_classes, n_groups = len(np.unique(y)), int(group.max(initial=-1)) + 1
    if len(y) < max(_MIN_LABELS, 4 * n_classes) or n_classes < 2 or n_groups < _MIN_GROUPS:
        raise InputError(
            f"{_OWNER} needs at least {_MIN_LABELS} labels, four per class, two classes and five "
            f"groups; got {len(y)} labels of {n_classes} classes in {n_groups} groups."
        )
    return group


def _measure(
    X: Array, y: Array, group: Array, sizes: Array, head: Any, n_repeats: int, rng: Any
) -> tuple[Array, Array]:
    """Return the numbers of errors and of scored rows, (n_sizes, n_repeats, n_groups) each."""
    n_groups = group.max() + 1
    wrong, seen = np.zeros((2, len(sizes), n_repeats, n_groups))
    for repeat in range(n_repeats):
        order = _order(y, group, rng)
        for i, size in enumerate(sizes):
            rows = order[:size]
            rest = np.flatnonzero(~np.isin(group, group[rows]))
            if len(rest) and len(np.unique(y[rows])) > 1:
                bad = clone(head).fit(X[rows], y[rows]).predict(X[rest]) != y[rest]
                wrong[i, repeat] = np.bincount(group[rest], bad, minlength=n_groups)
                seen[i, repeat] = np.bincount(group[rest], minlength=n_groups)
    if not seen.any(axis=(1, 2)).all():
        raise InputError(f"groups of {_OWNER} leave no rows to score; pass smaller groups.")
    return wrong, seen


def _order(y: Array, group: Array, rng: Any) -> Array:
    """Return a random order of rows (n,) with stratified parts and with groups kept together."""
    places = rng.permutation(group.max() + 1)[group]
    order = np.lexsort((rng.uniform(size=len(y)), places))
    quantile = np.empty(len(y))
    for label in np.unique(y):
        rows = order[y[order] == label]
        quantile[rows] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
    return np.argsort(quantile, kind="stable")


def _resampled(wrong: Array, seen: Array, rng: Any) -> Array:
    """Return the error rates (n_draws, n_sizes) of resampled groups and repeats."""
    _, n_repeats, n_groups = wrong.shape
    groups = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=_DRAWS)
    repeats = rng.multinomial(n_repeats, np.full(n_repeats, 1 / n_repeats), size=_DRAWS)

    def total(counts: Array) -> Array:
        per_repeat = np.tensordot(groups, counts, axes=(1, 2))
        return np.einsum("ksr,kr->ks", per_repeat, repeats)

    return total(wrong) / np.maximum(total(seen), 1e-9)


def _power_laws(n: Array, errors: Array, weight: Array) -> Array:
    """Return the least-squares a, b, c (k, 3) for `errors` (k, m) at sizes n (m,)."""
    best, laws = np.full(len(errors), np.inf), np.zeros((len(errors), 3))
    mean = errors @ weight / weight.sum()
    for b in _EXPONENTS:  # for each, the best a, c >= 0 have a closed form
        f = n**-b
        centred = f - weight @ f / weight.sum()
        a = np.maximum(errors @ (weight * centred) / (weight @ centred**2), 0)
        c = mean - a * (weight @ f) / weight.sum()
        a = np.where(c < 0, errors @ (weight * f) / (weight @ f**2), a)
        c = np.maximum(c, 0)
        loss = np.square(a[:, None] * f + c[:, None] - errors) @ weight
        laws = np.where((loss < best)[:, None], np.column_stack([a, np.full(len(a), b), c]), laws)
        best = np.minimum(best, loss)
    return laws
