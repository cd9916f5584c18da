"""Attention pooling: a head that learns which views of an image, such as tiles, to weight most."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from featuretl._core.parameters import check_int, check_number
from featuretl._core.types import Array
from featuretl._learning.responses import Responses
from featuretl._learning.rows import scale_of
from featuretl._learning.targets import read_targets, read_weight
from featuretl.heads.views import split_views

_TOL = 1e-6  # relative decrease of the objective in an iteration


@dataclass(eq=False, repr=False)
class AttentionPoolingClassifier(Responses, BaseEstimator):
    """Logistic regression on a weighted mean of an image's views, with learned weights.

    A view with the standardised embedding ``z`` has the weight ``exp(z @ u)``, divided by the sum
    over the views of its image. The weighted mean goes through multinomial logistic regression.
    Both parts are fitted together, from the labels of the images alone. Use this head for tiles of
    which few show the label; otherwise `ViewPooling` and `ViewsClassifier` are as accurate and
    faster.

    Parameters
    ----------
    n_views : as in `ViewPooling`
    C : float > 0, default=0.1
        Inverse strength of the penalty on the coefficients; the loss is a sum over images.
    attention_C : float > 0, default=0.01
        Inverse strength of the penalty on ``u``; a smaller value keeps pooling closer to the mean.
    max_iter : int >= 1, default=1000
        Maximum number of L-BFGS iterations.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_, intercept_ : ndarray of shape (n_classes, d) and (n_classes,), float64
        Coefficients of the pooled, standardised embedding, and intercepts.
    attention_coef_ : ndarray of shape (d,), float64
        ``u``.
    mean_, scale_ : ndarray of shape (d,), float64
        The standardisation of a view; see ``scaling="floored"`` of `LinearProbeClassifier`.
    n_features_in_ : int
        Number of columns of X.

    See Also
    --------
    ViewPooling : The mean or the maximum, before any head.

    Notes
    -----
    The objective is not convex; it is minimised from ``u = 0``, where pooling is the mean.

    References
    ----------
    Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, 2018 (this head has
    no hidden layer).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> views = rng.standard_normal((60, 4, 5))  # four views of five features
    >>> y = np.arange(60) % 2
    >>> shown = rng.integers(4, size=60)  # the only view that shows the class
    >>> views[np.arange(60), shown, :2] = np.c_[np.full(60, 4), 4 * y - 2]
    >>> head = AttentionPoolingClassifier(4, attention_C=1).fit(views.reshape(60, -1), y)
    >>> int((head.attention(views.reshape(60, -1)).argmax(axis=1) == shown).sum())
    60
    """

    n_views: int = 1
    _: KW_ONLY
    C: float = 0.1
    attention_C: float = 0.01
    max_iter: int = 1000

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit both parts; parameters and errors are those of `ViewsClassifier.fit`."""
        owner = type(self).__name__
        check_number(owner, "C", self.C, "(0, inf)")
        check_number(owner, "attention_C", self.attention_C, "(0, inf)")
        check_int(owner, "max_iter", self.max_iter, 1)
        views = split_views(self, X, self.n_views, reset=True)
        targets = read_targets(self, y, len(views), multilabel=False)
        weight = read_weight(self, sample_weight, len(views))
        self.classes_ = targets.classes
        self.mean_ = np.average(views.mean(axis=1, dtype=np.float64), axis=0, weights=weight)
        squares = np.square(views - self.mean_, dtype=np.float64).mean(axis=1)
        self.scale_ = scale_of(np.average(squares, axis=0, weights=weight), "floored")
        self._minimise(self._standardised(views), targets.codes, weight)
        return self

    def attention(self, X: Any) -> Array:
        """Return the weights of the views of each image: (n, n_views), rows summing to 1."""
        views = split_views(self, X, self.n_views, reset=False)
        return softmax(self._standardised(views) @ self.attention_coef_, axis=1)

    def _logits(self, X: Any) -> Array:
        Z = self._standardised(split_views(self, X, self.n_views, reset=False))
        pooled = _pooled(softmax(Z @ self.attention_coef_, axis=1), Z)
        logits: Array = pooled @ self.coef_.T + self.intercept_
        return logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits

    def _standardised(self, views: Array) -> Array:
        Z = np.subtract(views, self.mean_, dtype=views.dtype)
        Z /= self.scale_.astype(views.dtype)
        return Z

    def _minimise(self, Z: Array, codes: Array, weight: Array) -> None:
        """Set the coefficients, fitted to views `Z` (n, n_views, d)."""
        d, c = Z.shape[2], len(self.classes_)
        is_class = codes[:, None] == np.arange(c)

        def objective(parameters: Array) -> tuple[float, Array]:
            u, coef, intercept = _unpacked(parameters, d, c)
            attention = softmax(Z @ u.astype(Z.dtype), axis=1)
            pooled = _pooled(attention, Z).astype(np.float64)
            log_proba = log_softmax(pooled @ coef.T + intercept, axis=1)
            slope = weight[:, None] * (np.exp(log_proba) - is_class)
            by_pooled = (slope @ coef).astype(Z.dtype)
            by_weight = np.matmul(Z, by_pooled[:, :, None])[:, :, 0]
            centred = by_weight - (attention * by_weight).sum(axis=1, keepdims=True)
            by_u = np.einsum("nk,nkd->d", attention * centred, Z, optimize=True)
            value = -(weight[:, None] * is_class * log_proba).sum()
            value += np.square(coef).sum() / (2 * self.C) + u @ u / (2 * self.attention_C)
            by_coef = slope.T @ pooled + coef / self.C
            gradient = [by_u + u / self.attention_C, by_coef.ravel(), slope.sum(axis=0)]
            return float(value), np.concatenate(gradient)

        start = np.zeros(d + c * d + c)
        options = {"maxiter": self.max_iter, "ftol": _TOL}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        if found.nit >= self.max_iter and self.max_iter > 1:
            owner = type(self).__name__
            message = f"{owner} did not converge in max_iter={self.max_iter} iterations."
            warnings.warn(message, ConvergenceWarning, stacklevel=3)
        self.n_iter_ = int(found.nit)
        self.attention_coef_, self.coef_, self.intercept_ = _unpacked(found.x, d, c)


def _pooled(weights: Array, Z: Array) -> Array:
    """Return the weighted means over views: (n, d)."""
    return np.matmul(weights[:, None, :].astype(Z.dtype), Z)[:, 0]


def _unpacked(parameters: Array, d: int, c: int) -> tuple[Array, Array, Array]:
    """Return u (d,), coefficients (c, d) and intercepts (c,)."""
    return parameters[:d], parameters[d : d + c * d].reshape(c, d), parameters[d + c * d :]
