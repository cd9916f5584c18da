"""NoveltyDetector: a calibrated score of how unlike the training images an image is."""

from __future__ import annotations

import numbers
from typing import Any, Self

import numpy as np
from scipy.stats import chi2
from sklearn.base import BaseEstimator
from sklearn.preprocessing import normalize
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_int, parameter_error, random_generator
from featuretl._core.statistics import error_of_mean
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl._learning.refit import forget
from featuretl._learning.targets import as_matrix
from featuretl.exceptions import InputError
from featuretl.novelty.drift import Drift

# More calibration images do not resolve a fraction of 0.01 better.
_MOST_CALIBRATED = 10_000
# The probability that the error of calibration images in groups exceeds its bound.
_UNCERTAIN = 0.01
# Rows whose similarities are in memory at a time.
_BLOCK = 2048


class NoveltyDetector(BaseEstimator):
    """Detect images that are unlike the training ones by their embeddings.

    The score is the cosine similarity to the most similar training image (k-NN out-of-distribution
    detection, Sun et al. 2022, arXiv:2204.06507). It is calibrated on the training images: each is
    scored without itself, and without its group, among them (leave-one-out). The detector is for new
    images: scikit-learn's outlier detectors also find outliers among their own training rows.

    Parameters
    ----------
    n_neighbors : int >= 1, default=1
        The score is the similarity to the k-th most similar training image. More than 1 makes it
        robust to outliers among the training images.
    level : float in (0, 0.5], default=0.05
        The fraction of images like the training ones that `predict` calls novel. At least
        1 / level - 1 training images are needed for any to be novel: 19 for 0.05, 99 for 0.01.
    max_references : int >= 2, default=2000
        The most training images that are kept, drawn at random, in float16: 2 bytes times `d` each,
        about 5 MB for 1,280 features.
    random_state : int, RandomState or None, default=None
        Draws them, and the at most 10,000 images that calibrate.

    Attributes
    ----------
    references_ : ndarray of shape (m, d), float16
        Embeddings of length 1.
    calibration_ : ndarray of shape (c,), float64
        Scores of held-out training images, ascending.
    calibration_worth_ : float
        The number of independent images that these are worth at `level`: `c`, and with groups at most
        their number.
    offset_ : float
        The lowest score that is not novel; -inf where the training images are too few.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has names.

    See Also
    --------
    sklearn.neighbors.LocalOutlierFactor : Density relative to that of the neighbours.
    DomainAdapter : What to do about images that look different.

    Notes
    -----
    1 - `novelty` is a conformal p-value (Bates et al. 2023, arXiv:2104.08279): at most a fraction
    `level` of exchangeable new images is called novel. Where several training images are of one
    patient, signer or series, pass `groups`; otherwise images of new ones are called novel too often.

    Mahalanobis distances, the local outlier factor and others were measured and left out, see
    ``benchmarks/novelty.py``.

    Examples
    --------
    >>> import numpy as np
    >>> from featuretl import NoveltyDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 8)) + 3
    >>> detector = NoveltyDetector(random_state=0).fit(X[:300])
    >>> detector.predict(X[300:]).tolist().count(-1)  # of 100
    4
    >>> detector.novelty(-X[:2]).round(3)
    array([0.997, 0.997])
    >>> print(detector.drift(X[300:]))
    4 of 100 images are unlike the training images at the 5% level, where 5.0 are expected: no clear \
sign that the images have changed.
    """

    def __init__(
        self,
        n_neighbors: int = 1,
        *,
        level: float = 0.05,
        max_references: int = 2000,
        random_state: Any = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.level = level
        self.max_references = max_references
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Keep training images, and calibrate the similarity of images like them.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of the training images; finite.
        y : ignored
        groups : array-like of shape (n,), default=None
            Images of one group, and equal rows of X, are not compared with each other.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If lengths differ, or too few images are of other groups.
        """
        self._check_parameters()
        forget(self)
        X = as_matrix(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        groups = joined(read_groups(type(self).__name__, groups, len(X)), copies_of(X))
        group = np.arange(len(X)) if groups is None else groups
        order = random_generator(type(self).__name__, self.random_state).permutation(len(X))
        kept, held_out = order[: self.max_references], order[-_MOST_CALIBRATED:]
        others = len(kept) - np.bincount(group[kept]).max()
        if others < self.n_neighbors:
            raise InputError(
                f"NoveltyDetector(n_neighbors={self.n_neighbors}) needs as many training images "
                f"besides those of any one group; got {others}."
            )
        self.references_ = normalize(X[kept]).astype(np.float16)
        scores = self._similarity(X[held_out], group[held_out], group[kept])
        self.calibration_ = np.sort(scores)
        rank = self._rank()
        self.offset_ = float(self.calibration_[rank - 1]) if rank else -np.inf
        self.calibration_worth_ = float(len(scores))
        if groups is not None:
            self.calibration_worth_ = _worth(scores <= self.offset_, group[held_out])
        return self

    def score_samples(self, X: Any) -> Array:
        """Return the cosine similarity to the k-th most similar training image, (n,).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of new images: a training image is most similar to itself.

        Returns
        -------
        ndarray of shape (n,), float64
            Higher is more normal; in [-1, 1], but for the rounding of float16.
        """
        check_is_fitted(self)
        return self._similarity(as_matrix(self, X, reset=False, dtype=(np.float64, np.float32)))

    def decision_function(self, X: Any) -> Array:
        """Return the scores of embeddings X (n, d) less `offset_`, (n,): below 0 an image is novel."""
        found: Array = self.score_samples(X) - self.offset_
        return found

    def predict(self, X: Any) -> Array:
        """Return -1 for each novel image and 1 for the others, (n,), of embeddings X (n, d)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def novelty(self, X: Any) -> Array:
        """Return the fraction of images like the training ones that are less novel than each image.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), float64
            In [0, 1); an image is novel at a level of 0.05 from 0.95 on. At most c / (c + 1), with
            `c` calibration images.
        """
        as_low = np.searchsorted(self.calibration_, self.score_samples(X), side="right")
        found: Array = 1 - (1 + as_low) / (len(self.calibration_) + 1)
        return found

    def drift(self, X: Any, groups: Any = None) -> Drift:
        """Test whether the number of novel images exceeds what chance explains.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of new images.
        groups : array-like of shape (n,), default=None
            Images of one group count as one draw; without groups each image does.
        """
        novel = self.is_novel(self.novelty(X))
        codes = read_groups(type(self).__name__, groups, len(novel))
        draws = None if codes is None else int(codes.max()) + 1
        return self.drift_of(len(novel), int(novel.sum()), draws)

    def is_novel(self, novelty: Array) -> Array:
        """Return whether each of `novelty` (n,) is that of a novel image, (n,) bool."""
        found: Array = novelty >= 1 - self.level
        return found

    def drift_of(self, images: int, novel: int, draws: int | None = None) -> Drift:
        """Return what `drift` does for counts of images; `draws` are independent, None: all."""
        n, draws = len(self.calibration_), images if draws is None else draws
        return Drift.of(images, novel, self.level, self._rank(), n, self.calibration_worth_, draws)

    def _rank(self) -> int:
        """Return the rank, from 1, of the lowest score that is not novel; 0 for none."""
        n = len(self.calibration_)
        return int(np.count_nonzero(np.arange(1, n + 1) / (n + 1) <= self.level))

    def _similarity(self, X: Array, group: Any = None, of_reference: Any = None) -> Array:
        """Return the k-th largest cosine; rows of one group do not count as similar."""
        references = self.references_.astype(np.float64)
        k = self.n_neighbors
        found = np.empty(len(X))
        for rows in gen_batches(len(X), _BLOCK):
            cosine = normalize(X[rows].astype(np.float64)) @ references.T
            if group is not None:
                cosine[group[rows, None] == of_reference] = -np.inf
            found[rows] = cosine.max(axis=1) if k == 1 else np.partition(cosine, -k, axis=1)[:, -k]
        return found

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_int(owner, "n_neighbors", self.n_neighbors, 1)
        check_int(owner, "max_references", self.max_references, 2)
        is_number = isinstance(self.level, numbers.Real) and not isinstance(self.level, bool)
        if not is_number or not 0 < self.level <= 0.5:
            raise parameter_error(owner, "level", "a number in (0, 0.5]", self.level)


def _worth(is_low: Array, group: Array) -> float:
    """Return the number of independent draws that would give a proportion its standard error.

    The error of few groups is itself uncertain: its upper bound counts, and no group more than once.
    """
    share, n_groups = is_low.mean(), len(np.unique(group))
    error = error_of_mean(is_low.astype(np.float64), group)
    if not 0 < share < 1 or not error > 0 or n_groups < 2:
        return float(n_groups)
    certain = chi2.ppf(_UNCERTAIN, n_groups - 1) / (n_groups - 1)
    return float(np.clip(certain * share * (1 - share) / error**2, 1, n_groups))
