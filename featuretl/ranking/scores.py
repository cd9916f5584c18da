"""LogME: a score of embeddings that needs no trained head."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from featuretl._core.parameters import check_option
from featuretl._core.types import Array
from featuretl._learning.labels import all_labels, all_numbers, one_label_each
from featuretl._learning.rows import finite_matrix
from featuretl._learning.targets import check_length
from featuretl.exceptions import InputError

TASKS = ("auto", "classification", "regression")

_ITERATIONS = 1000
_TOL = 1e-9
_MAX_RATIO = 1e12  # bounds alpha / beta relative to the largest eigenvalue, both ways


class BackboneScore(NamedTuple):
    """A score of embeddings, and the centred loss `influence` (n,), float64, without each image."""

    value: float
    influence: Array


def log_me(X: Any, y: Any, *, task: str = "auto") -> float:
    """Return LogME: the log evidence of a Bayesian linear model, per image.

    The model is ``y ~ N(X w, 1 / beta)`` with ``w ~ N(0, 1 / alpha)``, where alpha and beta
    maximize the evidence; for classes, the mean over one-vs-rest models of 0/1 targets. The model
    has no intercept, and LogME does not depend on the scale of X. It is algorithm 1 of You et al.
    (ICML 2021, arXiv:2102.11005) with the fixed-point iteration of arXiv:2110.10545.

    Parameters
    ----------
    X : array-like of shape (n, d), float
        Embeddings; finite.
    y : array-like of shape (n,), or (n, n_outputs) for regression
        Classes, or regression targets.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": numbers with a fraction are regression, all else is classification.

    Returns
    -------
    float
        In nats, comparable between embeddings of the same images; larger is better.

    Raises
    ------
    ParameterError, InputError
        If `task` has an invalid value, X is not finite, lengths differ, or `y` has a single class.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> log_me(X, y) > log_me(X[:, :2], y)
    True
    """
    X = finite_matrix("X of log_me", X).astype(np.float64)
    return log_me_score(X, read_labels("log_me", y, len(X), task)).value


def log_me_score(X: Array, y: Array) -> BackboneScore:
    """Return LogME of X (n, d), float64, and targets (n, k) or class codes (n,)."""
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
    # An image adds the density of its targets, given the others, to the evidence: for fixed alpha
    # and beta, a closed form of the jackknife (Efron 1982, chapter 3).
    free = 1 - np.square(left) @ shrink
    error = np.square(Y - left @ (shrink * image)) / free
    density = (np.log(free) - beta * error).sum(axis=1) / 2
    loss = density / (n * Y.shape[1])
    # Centred: the mean is the effect of one image less, whichever it is.
    return BackboneScore(float(evidence.mean() / n), loss - loss.mean())


def read_labels(owner: str, y: Any, n: int, task: str) -> Array:
    """Return class codes (n,), or regression targets (n, k), float64."""
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


def _decompose(X: Array) -> tuple[Array, Array]:
    """Return the left singular vectors (n, r) and squared singular values (r,) of X (n, d)."""
    is_tall = len(X) > X.shape[1]
    values, vectors = np.linalg.eigh(X.T @ X if is_tall else X @ X.T)
    kept = values > values[-1] * np.finfo(np.float64).eps * max(X.shape)
    values, vectors = values[kept], vectors[:, kept]
    return (X @ vectors / np.sqrt(values) if is_tall else vectors), values


def _fixed_point(values: Array, image: Array, outside: Array, n: int) -> Array:
    """Return the ratio alpha / beta (k,) of maximal evidence; `image` (r, k) holds squares."""
    least, most = values.max() / _MAX_RATIO, values.max() * _MAX_RATIO
    ratio = np.full(image.shape[1], values.mean())
    for _ in range(_ITERATIONS):
        gamma = (values[:, None] / (ratio + values[:, None])).sum(axis=0)
        damped = image / np.square(ratio + values[:, None])
        error = np.square(ratio) * damped.sum(axis=0) + outside
        found = gamma * error / ((n - gamma) * (values @ damped))
        before, ratio = ratio, np.clip(found, least, most)
        if (abs(ratio - before) <= _TOL * before).all():
            break
    return ratio
