"""LogME, H-score, TransRate: how well embeddings suit labels, without a head being trained.

Each score comes with what it loses without each image, in closed form: alpha, beta and the strength
of a shrinkage stay as they are, leverages and determinants do not. These give the jackknife's
standard error over images at no further cost, and that of the difference of two backbones on the same
images (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 3).

All three need of the embeddings `F` only ``F F' = U diag(l) U'``, found once, in float64, from the
smaller of ``F'F`` and ``F F'``. Squaring costs no digits that float32 embeddings have.
"""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from featuretl._labels import all_labels, all_numbers, one_label_each
from featuretl._validation import check_option, parameter_error
from featuretl.exceptions import InputError
from featuretl.heads._rows import check_finite
from featuretl.heads._targets import check_length

Array = np.ndarray[Any, Any]

TASKS = ("auto", "classification", "regression")

_ITERATIONS = 1000
_TOL = 1e-9
_WIDEST = 1e12  # of alpha / beta relative to the largest eigenvalue, and of its inverse


class Estimate(NamedTuple):
    """A score and what each image has to do with it.

    Attributes
    ----------
    score : float
    influence : ndarray of shape (n,), float64
        What the score loses without each image, less the mean of that.
    """

    score: float
    influence: Array

    @classmethod
    def of(cls, score: float, loss: Array) -> Estimate:
        """Centre `loss`: to have an image less, whichever it is, is not another sample."""
        return cls(float(score), loss - loss.mean())


def log_me(X: Any, y: Any, *, task: str = "auto") -> float:
    """Return LogME: the log evidence of a Bayesian linear model, per image.

    ``y ~ N(X w, 1 / beta)`` with ``w ~ N(0, 1 / alpha)``, where alpha and beta maximise the
    evidence, which the fixed point ``alpha = gamma / |m|^2``, ``beta = (n - gamma) / |X m - y|^2``
    finds; for classes the mean over one such model of 0 and 1 for each. There is no intercept, and
    a common factor of X changes nothing.

    Parameters
    ----------
    X : array-like of shape (n, d), float
        Embeddings; finite.
    y : array-like of shape (n,), or (n, n_outputs) for regression
        Classes or numbers.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": numbers with a fraction are regression, the rest classification.

    Returns
    -------
    float
        Natural logarithm; larger is better. Comparable between embeddings of the same images.

    Raises
    ------
    InputError
        If X is not finite, `y` has another length or a single class.
    ParameterError
        If `task` is none of these.

    References
    ----------
    You, Liu, Wang and Long, LogME: Practical Assessment of Pre-trained Models for Transfer Learning,
    ICML 2021, algorithm 1. The fixed point: You, Liu, Zhang, Wang, Jordan and Long, Ranking and
    Tuning Pre-trained Models, JMLR 23, 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> log_me(X, y) > log_me(X[:, :2], y)
    True
    """
    X = _read_matrix("log_me", X)
    return estimate_log_me(X, read_labels("log_me", y, len(X), task)).score


def h_score(X: Any, y: Any, *, shrinkage: float | str = "auto") -> float:
    """Return the H-score: how far the class means lie apart, in units of the embeddings' spread.

    ``tr(S^-1 (1 - a) B)`` with B the covariance of the class means (each image counts) and
    ``S = (1 - a) C + a tr(C) / d I`` for the covariance C of X and the shrinkage a.

    Parameters
    ----------
    X : array-like of shape (n, d), float
        Embeddings; finite.
    y : array-like of shape (n,)
        Classes.
    shrinkage : float in [0, 1) or "auto", default="auto"
        The a: "auto" is Ledoit and Wolf's, without which the score says little unless there are
        many more images than columns; 0 is the score as first published, with a pseudo-inverse.

    Returns
    -------
    float
        In [0, n_classes - 1]; larger is better.

    Raises
    ------
    InputError
        If X is not finite, `y` has another length, a single class, or is not of classes.
    ParameterError
        If `shrinkage` is not in range.

    References
    ----------
    Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas, An Information-Theoretic Approach to
    Transferability in Task Transfer Learning, ICIP 2019. With shrinkage: Ibrahim, Ponomareva and
    Mazumder, Newer is not always better, 2021, arXiv:2110.06893.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> round(h_score(X, y, shrinkage=0), 3)
    1.192
    """
    is_number = isinstance(shrinkage, numbers.Real) and not isinstance(shrinkage, bool)
    if shrinkage != "auto" and not (is_number and 0 <= float(shrinkage) < 1):
        raise parameter_error("h_score", "shrinkage", "'auto' or a number in [0, 1)", shrinkage)
    X = _read_matrix("h_score", X)
    y = read_labels("h_score", y, len(X), "classification")
    return estimate_h_score(X, y, None if shrinkage == "auto" else float(shrinkage)).score


def transrate(X: Any, y: Any, *, epsilon: float = 1e-4) -> float:
    """Return TransRate: the mutual information of embeddings and classes, by coding rates.

    ``R(Z) - sum_c n_c / n R(Z_c)`` with ``R(Z) = log det(I + Z'Z / (n epsilon)) / 2`` for the
    centred embeddings Z, and Z_c those of class c, about the common mean.

    Parameters
    ----------
    X : array-like of shape (n, d), float
        Embeddings; finite. Their scale counts, relative to `epsilon`.
    y : array-like of shape (n,)
        Classes.
    epsilon : float > 0, default=1e-4
        Distortion.

    Returns
    -------
    float
        In nats, >= 0; larger is better.

    Raises
    ------
    InputError
        If X is not finite, `y` has another length, a single class, or is not of classes.
    ParameterError
        If `epsilon` is not > 0.

    References
    ----------
    Huang, Huang, Rong, Yang and Wei, Frustratingly Easy Transferability Estimation, ICML 2022. (The
    listing there weights all classes alike, which differs where they are not of one size.)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> transrate(X, y) > transrate(X[:, :2], y)
    True
    """
    if not (isinstance(epsilon, numbers.Real) and 0 < epsilon < np.inf):
        raise parameter_error("transrate", "epsilon", "a number > 0", epsilon)
    X = _read_matrix("transrate", X)
    y = read_labels("transrate", y, len(X), "classification")
    return estimate_transrate(X, y, float(epsilon)).score


def estimate_log_me(X: Array, y: Array) -> Estimate:
    """Return LogME of X (n, d), float64, and targets (n, k), or class numbers (n,)."""
    n = len(X)
    Y = y if y.ndim == 2 else np.eye(y.max() + 1)[y]
    left, values = _decompose(X)
    image = left.T @ Y
    outside = np.maximum(np.square(Y).sum(axis=0) - np.square(image).sum(axis=0), 0.0)
    ratio = _fixed_point(values, np.square(image), outside, n)
    shrink = values[:, None] / (ratio + values[:, None])
    # At ratio = alpha / beta, beta maximises the evidence in closed form.
    energy = ((1 - shrink) * np.square(image)).sum(axis=0) + outside
    beta = n / energy
    volume = np.log1p(values[:, None] / ratio).sum(axis=0)
    evidence = (n * np.log(beta / (2 * np.pi)) - n - volume) / 2
    # The evidence that an image adds is the density of its targets, given the others.
    free = 1 - np.square(left) @ shrink
    error = np.square(Y - left @ (shrink * image)) / free
    density = (np.log(free) - beta * error).sum(axis=1) / 2
    return Estimate.of(evidence.mean() / n, density / (n * Y.shape[1]))


def estimate_h_score(X: Array, y: Array, shrinkage: float | None = None) -> Estimate:
    """Return the H-score of X (n, d), float64, and class numbers (n,); None: Ledoit and Wolf's."""
    X = X - X.mean(axis=0)
    n, d = X.shape
    a = float(ledoit_wolf_shrinkage(X, assume_centered=True)) if shrinkage is None else shrinkage
    left, values = _decompose(X)
    precision = 1 / ((1 - a) * values / n + a * values.sum() / (n * d))
    rows = left * np.sqrt(values)
    size, means = _class_means(rows, y)
    between = size / n @ np.square(means)
    score = precision @ between
    # Without image x of class c, by x' S^-1 m for all means m, and S^-1 after a rank-one change.
    to_means = rows @ (precision * means).T
    own, m = to_means[np.arange(n), y], size[y]
    to_own_mean = (np.square(means) @ precision)[y]
    to_itself = np.square(rows) @ precision
    change = (1 - a) / (n - 1 - (1 - a) * to_itself)
    rest = np.maximum(m - 1, 1)
    moved = (m**2 * to_own_mean - 2 * m * own + to_itself) / rest**2
    moved += change * np.square((m * own - to_itself) / rest)
    without = score + change * (np.square(to_means) @ (size / n))
    without -= m / n * (to_own_mean + change * np.square(own))
    without += np.where(m > 1, (m - 1) / n * moved, 0.0)
    without -= (to_itself + change * np.square(to_itself)) / (n * (n - 1))
    narrower = a / (n * d) * np.square(rows).sum(axis=1) * (np.square(precision) @ between)
    return Estimate.of((1 - a) * score, (1 - a) * (score - without - narrower))


def estimate_transrate(X: Array, y: Array, epsilon: float = 1e-4) -> Estimate:
    """Return TransRate of X (n, d), float64, and class numbers (n,)."""
    n = len(X)
    left, values = _decompose(X - X.mean(axis=0))
    rows = left * np.sqrt(values)
    score, loss = _coding_rate(left, values, epsilon)
    for c in range(y.max() + 1):
        of_class = rows[y == c]
        m = len(of_class)
        left, values = _decompose(of_class)
        rate, within = _coding_rate(left, values, epsilon)
        score -= m / n * rate
        loss[y == c] -= (rate + m * within) / n
        # The common mean moves with every image: the class's I + Z'Z / (m epsilon), inverted, on
        # its mean.
        ones = left.sum(axis=0) * values / (m * epsilon + values)
        moved = of_class.T @ (1 - left @ ones) / m
        loss += m / n**2 / epsilon * rows @ moved
    return Estimate.of(score, loss)


def read_labels(owner: str, y: Any, n: int, task: str) -> Array:
    """Return the class numbers (n,), or for regression the targets (n, k) in float64, of `y`."""
    check_option(owner, "task", task, TASKS)
    if task == "regression":
        targets = all_numbers(owner, y)
        check_length(n, "y", len(targets))
        return targets.reshape(n, -1)
    labels = all_labels(owner, y)
    check_length(n, "y", len(labels))
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        if task == "classification":
            raise InputError(f"y of {owner} must hold classes; got numbers with a fraction.")
        return labels.astype(np.float64).reshape(n, -1)
    labels = one_label_each(owner, labels)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y of {owner} must have at least 2 classes; got {classes.tolist()}.")
    return codes


def _read_matrix(owner: str, X: Any) -> Array:
    X = np.asarray(X, np.float64)
    if X.ndim != 2 or not X.size:
        raise InputError(f"X of {owner} must have the shape (n, d); got {X.shape}.")
    check_finite(X)
    return X


def _decompose(X: Array) -> tuple[Array, Array]:
    """Return the left singular vectors (n, r) and squared singular values (r,) of X (n, d)."""
    if len(X) > X.shape[1]:
        values, right = np.linalg.eigh(X.T @ X)
    else:
        values, right = np.linalg.eigh(X @ X.T)
    kept = values > values[-1] * np.finfo(np.float64).eps * max(X.shape)
    values, right = values[kept], right[:, kept]
    return (X @ right / np.sqrt(values) if len(X) > X.shape[1] else right), values


def _fixed_point(values: Array, image: Array, outside: Array, n: int) -> Array:
    """Return alpha / beta of maximal evidence (k,); `image` (r, k) are squares."""
    least, most = values.max() / _WIDEST, values.max() * _WIDEST
    ratio = np.full(image.shape[1], values.mean())
    for _ in range(_ITERATIONS):
        gamma = (values[:, None] / (ratio + values[:, None])).sum(axis=0)
        damped = image / np.square(ratio + values[:, None])
        error = np.square(ratio) * damped.sum(axis=0) + outside
        found = gamma * error / ((n - gamma) * (values @ damped))
        found = np.clip(found, least, most)
        if (abs(found - ratio) <= _TOL * ratio).all():
            return found
        ratio = found
    return ratio


def _class_means(rows: Array, y: Array) -> tuple[Array, Array]:
    """Return the size (k,) and the mean (k, r) of each class."""
    size = np.bincount(y)
    indicator = np.eye(len(size))[y]
    return size, indicator.T @ rows / size[:, None]


def _coding_rate(left: Array, values: Array, epsilon: float) -> tuple[float, Array]:
    """Return the rate, and what it loses without each image (n,): n - 1 divides the others then."""
    n = len(left)
    share = values / (n * epsilon + values)
    loss = -np.log(1 - np.square(left) @ share) / 2
    return np.log1p(values / (n * epsilon)).sum() / 2, loss - share.sum() / (2 * n)
