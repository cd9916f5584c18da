"""The nearest class mean: for a few images per class, and for incremental learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from featuretl._core.parameters import parameter_error
from featuretl._core.types import Array
from featuretl._learning.arrays import library_of, near, to_numpy
from featuretl._learning.responses import Responses
from featuretl._learning.rows import blocks, in_blocks
from featuretl._learning.targets import read_announced, read_matrix, read_targets, read_weight


@dataclass(eq=False, repr=False)
class NearestMeanClassifier(Responses, BaseEstimator):
    """Nearest class mean of centred, L2-normalised embeddings (SimpleShot, CL2N).

    It has nothing to tune and works from one image per class; a further image costs one addition.

    Parameters
    ----------
    center : "mean" or array-like of shape (d,), default="mean"
        What to subtract before the normalisation. "mean" is the mean of X in `fit`, or in the first
        `partial_fit`, and is then fixed. If a stream starts with few rows, give the mean of a
        larger collection, as SimpleShot does with its base classes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    means_ : ndarray of shape (n_classes, d), float64
        Mean of the centred, normalised embeddings of each class; NaN for a class without rows.
    center_ : ndarray of shape (d,), float64
        The vector that is subtracted.
    class_weight_ : ndarray of shape (n_classes,), float64
        Sum of the weights of the rows of each class.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    sklearn.neighbors.NearestCentroid : Without centring and normalisation.

    References
    ----------
    Wang, Chao, Weinberger and van der Maaten, SimpleShot: Revisiting Nearest-Neighbor
    Classification for Few-Shot Learning, 2019, arXiv:1911.04623.
    Snell, Swersky and Zemel, Prototypical Networks for Few-shot Learning, 2017 (probabilities).

    Examples
    --------
    >>> from featuretl.heads.nearest_mean import NearestMeanClassifier
    >>> X = [[3.0, 1.0], [1.0, 3.0]]
    >>> head = NearestMeanClassifier().fit(X, ["wide", "high"])
    >>> head.partial_fit([[9.0, 2.0]], ["wide"]).predict([[5.0, 2.0]]).tolist()
    ['wide']
    """

    center: Any = "mean"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit from scratch; parameters and errors are those of `LinearProbeClassifier.fit`.

        `y` has one class per row.
        """
        X = read_matrix(self, X, dispatch=True)
        targets = read_targets(self, y, len(X), multilabel=False)
        weight = read_weight(self, sample_weight, len(X))
        self._start(X, weight, targets.classes)
        return self._add(X, targets.codes, weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Add rows to the means, also after `fit`.

        Parameters and errors are those of `LinearProbeClassifier.partial_fit`; the first call needs
        `classes`, unless `fit` was called.
        """
        first = not hasattr(self, "means_")
        X = read_matrix(self, X, reset=first, dispatch=True)
        targets = read_announced(self, y, len(X), classes, multilabel=False)
        weight = read_weight(self, sample_weight, len(X))
        if first:
            self._start(X, weight, targets.classes)
        return self._add(X, targets.codes, weight)

    def _start(self, X: Array, weight: Array, classes: Array) -> None:
        self.classes_ = classes
        if isinstance(self.center, str) and self.center == "mean":
            weights, xp = near(X, weight), library_of(X)
            parts = [weights[at] @ xp.asarray(Z, dtype=xp.float64) for at, Z in blocks(X)]
            self.center_ = to_numpy(sum(parts)) / weight.sum()
        else:
            owner, expected = type(self).__name__, f"'mean' or {X.shape[1]} numbers"
            try:
                self.center_ = np.asarray(self.center, np.float64).reshape(X.shape[1])
            except (TypeError, ValueError) as error:
                raise parameter_error(owner, "center", expected, self.center) from error
        self.class_weight_ = np.zeros(len(classes))
        self._sums = np.zeros((len(classes), X.shape[1]))

    def _add(self, X: Array, codes: Array, weight: Array) -> Self:
        center = near(X, self.center_)
        for at, block in blocks(X):
            member = (codes[at] == np.arange(len(self.classes_))[:, None]) * weight[at]
            self._sums += to_numpy(near(X, member) @ _normalised(block, center))
        self.class_weight_ += np.bincount(codes, weight, minlength=len(self.classes_))
        with np.errstate(invalid="ignore"):
            self.means_ = self._sums / self.class_weight_[:, None]
        return self

    def _logits(self, X: Any) -> Array:
        """Return minus the squared distance to each mean, or for two classes their difference."""
        X = read_matrix(self, X, reset=False, dispatch=True)
        seen = self.class_weight_ > 0
        means = np.where(seen[:, None], self.means_, 0)
        lengths = np.where(seen, np.square(means).sum(axis=1), np.inf)
        center, means, lengths = (near(X, part) for part in (self.center_, means, lengths))

        def compute(block: Array) -> Array:
            Z = _normalised(block, center)
            return 2 * Z @ means.T - lengths - (Z**2).sum(axis=1)[:, None]

        scores = in_blocks(X, compute, len(means))
        return scores[:, 1:] - scores[:, :1] if len(means) == 2 else scores


def _normalised(block: Array, center: Array) -> Array:
    """Return the rows of `block` (k, d) minus `center` (d,), float64, divided by their lengths."""
    xp, Z = library_of(center), block - center
    length = xp.linalg.norm(Z, axis=1, keepdims=True)
    return Z / xp.where(length > 0, length, 1)
