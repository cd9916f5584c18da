"""NoveltyDetector: k-NN novelty scores of embeddings, calibrated on the training images."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import betabinom, chi2
from sklearn.base import BaseEstimator
from sklearn.preprocessing import normalize
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_int, check_number, random_generator
from featuretl._core.statistics import error_of_mean
from featuretl._core.types import Array
from featuretl._learning.arrays import float_of, library_of, near, to_numpy
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl._learning.rows import check_finite
from featuretl._learning.targets import read_matrix
from featuretl.exceptions import InputError

_MAX_CALIBRATION = 10_000  # more hardly improve the estimate of a fraction of 0.01
_BLOCK_ROWS = 2048
_SIGNIFICANCE = 0.001


@dataclass(repr=False, frozen=True)
class Drift:
    """The number of novel images, and the number expected without drift.

    Of all `images`, `novel` have a novelty of at least 1 - `level`, and `expected` would have it
    among images like the training images (0 if there were too few of these for any image to be
    novel). `pvalue`, in [0, 1], is the probability of at least `novel` novel images without drift;
    `can_tell` is False if the test cannot detect drift, with few images or draws.
    """

    images: int
    novel: int
    expected: float
    level: float
    pvalue: float
    can_tell: bool

    @property
    def is_clear(self) -> bool:
        """Whether the p-value is below 0.001."""
        return self.pvalue < _SIGNIFICANCE

    def explain(self) -> str:
        """Return the result as a sentence."""
        if not self.expected and self.images:
            return (
                "There are too few training images to tell which images are novel at the "
                f"{100 * self.level:.3g}% level."
            )
        found = (
            f"{self.novel:,} of {self.images:,} images are unlike the training images at the "
            f"{100 * self.level:.3g}% level, where {self.expected:,.1f} are expected"
        )
        if not self.can_tell and self.images:
            return f"{found}: too few images or groups to tell whether the images have changed."
        if not self.is_clear:
            return f"{found}: no clear sign that the images have changed."
        chance = f"p = {self.pvalue:.1g}" if self.pvalue >= 1e-6 else "p < 1e-6"
        return (
            f"{found}: the images may have changed ({chance} for independent images; images of one "
            "series or person are weaker evidence)."
        )

    __repr__ = explain


@dataclass(eq=False, repr=False)
class NoveltyDetector(BaseEstimator):
    """Detect images that are unlike the training images by their embeddings.

    The score is the cosine similarity to the most similar training image (k-NN out-of-distribution
    detection, Sun et al. 2022, arXiv:2204.06507). Leave-one-out scores of the training images, each
    without its group, calibrate it. The detector is for new images: unlike scikit-learn's outlier
    detectors, it does not find outliers among its training images.

    Parameters
    ----------
    n_neighbors : int >= 1, default=1
        The score is the similarity to the k-th most similar training image. More than 1 makes it
        robust to outliers among the training images.
    level : float in (0, 0.5], default=0.05
        False-positive rate: the fraction of images like the training images that `predict` calls
        novel. It needs at least 1 / level - 1 training images: 19 for 0.05, 99 for 0.01.
    max_references : int >= 2, default=2000
        Maximum number of training images to keep, drawn at random, in float16: about 5 MB for 2,000
        images of 1,280 features.
    random_state : int, RandomState or None, default=None
        Seed of the draws of references and of at most 10,000 calibration images.

    Attributes
    ----------
    references_ : ndarray of shape (m, d), float16
        Embeddings of unit length.
    calibration_ : ndarray of shape (c,), float64
        Scores of held-out training images, ascending.
    calibration_worth_ : float
        The effective number of independent calibration images at `level`: `c`; with groups, at most
        the number of groups.
    offset_ : float
        The lowest score that is not novel; -inf if there are too few training images.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    sklearn.neighbors.LocalOutlierFactor : Density relative to that of the neighbours.
    DomainAdaptedClassifier : Adapts a head to images of another domain.

    Notes
    -----
    1 - `novelty` is a conformal p-value (Bates et al. 2023, arXiv:2104.08279): at most a fraction
    `level` of exchangeable new images is called novel. Pass `groups` if several training images are
    of one patient, signer or series; otherwise too many images of new ones are called novel.
    ``benchmarks/novelty.py`` compares Mahalanobis distances, the local outlier factor and others.

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
    4 of 100 images are unlike the training images at the 5% level, where 5.0 are expected: no \
clear sign that the images have changed.
    """

    n_neighbors: int = 1
    _: KW_ONLY
    level: float = 0.05
    max_references: int = 2000
    random_state: Any = None

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Store reference embeddings, and calibrate the score.

        X are the embeddings (n, d) of the training images, all finite; images of one group in
        `groups` (n,), and equal rows of X, are not scored against each other. Raises ParameterError
        for an invalid parameter, and InputError if lengths differ or too few images are outside of
        a group. `y` is ignored.
        """
        owner = type(self).__name__
        check_int(owner, "n_neighbors", self.n_neighbors, 1)
        check_int(owner, "max_references", self.max_references, 2)
        check_number(owner, "level", self.level, "(0, 0.5]")
        X = read_matrix(self, X, min_rows=2, dispatch=True)
        check_finite(X)
        groups = joined(read_groups(owner, groups, len(X)), copies_of(X))
        group = np.arange(len(X)) if groups is None else groups
        order = random_generator(owner, self.random_state).permutation(len(X))
        references, held_out = order[: self.max_references], order[-_MAX_CALIBRATION:]
        others = len(references) - np.bincount(group[references]).max()
        if others < self.n_neighbors:
            raise InputError(
                f"NoveltyDetector needs at least n_neighbors={self.n_neighbors} training images "
                f"outside of each group; got {others}: pass more images, or a smaller n_neighbors."
            )
        kept = library_of(X).asarray(X[references], dtype=getattr(library_of(X), float_of(X)))
        self.references_ = to_numpy(normalize(kept)).astype(np.float16)
        scores = to_numpy(self._similarity(X[held_out], group[held_out], group[references]))
        self.calibration_ = np.sort(scores)
        rank = self._rank()
        self.offset_ = float(self.calibration_[rank - 1]) if rank else -np.inf
        self.calibration_worth_ = float(len(scores))
        if groups is not None:
            self.calibration_worth_ = _effective_size(scores <= self.offset_, group[held_out])
        return self

    def score_samples(self, X: Any) -> Array:
        """Return the cosine of embeddings X (n, d) and the k-th most similar training image, (n,).

        It is float64 in [-1, 1], up to the rounding of float16; higher is more normal. X are new
        images: a training image would match itself.
        """
        check_is_fitted(self)
        X = read_matrix(self, X, reset=False, dispatch=True)
        check_finite(X)
        return self._similarity(X)

    def decision_function(self, X: Any) -> Array:
        """Return the scores of embeddings X (n, d) minus `offset_`, (n,); below 0 is novel."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """Return -1 for novel images and 1 for others, (n,), given embeddings X (n, d)."""
        scores = self.decision_function(X)
        return library_of(scores).where(scores < 0, -1, 1)

    def novelty(self, X: Any) -> Array:
        """Return the fraction of images like the training images that are less novel than X (n, d).

        It is float64 (n,) in [0, 1), at most c / (c + 1) with `c` calibration images. An image is
        novel at a level of 0.05 if its value is at least 0.95.
        """
        scores = self.score_samples(X)
        as_low = np.searchsorted(self.calibration_, to_numpy(scores), side="right")
        return near(scores, 1 - (1 + as_low) / (len(self.calibration_) + 1))

    def drift(self, X: Any, groups: Any = None) -> Drift:
        """Test whether more of the images with embeddings X (n, d) are novel than `level`.

        The images of a group in `groups` (n,) count as one draw; by default all are independent.
        """
        novel = self.is_novel(self.novelty(X))
        codes = read_groups(type(self).__name__, groups, len(novel))
        draws = None if codes is None else int(codes.max()) + 1
        return self.drift_of(len(novel), int(novel.sum()), draws)

    def is_novel(self, novelty: Array) -> Array:
        """Return whether images with these values of `novelty` (n,) are novel, (n,) bool."""
        return novelty >= 1 - self.level

    def drift_of(self, images: int, novel: int, draws: int | None = None) -> Drift:
        """Return the `drift` of counts of images, of which `draws` (None: all) are independent.

        The beta-binomial distribution accounts for the estimate of the threshold `offset_`.
        """
        n, draws = len(self.calibration_), images if draws is None else draws
        fraction, size = self._rank() / (n + 1), (n + 1) * self.calibration_worth_ / n
        pvalue = least = 1.0
        if fraction and images:
            chance = betabinom(draws, size * fraction, size * (1 - fraction))
            pvalue, least = (float(chance.sf(k - 1)) for k in (novel * draws // images, draws))
        can_tell, pvalue = least < _SIGNIFICANCE, min(max(pvalue, 0.0), 1.0)
        return Drift(images, novel, images * fraction, self.level, pvalue, can_tell)

    def _rank(self) -> int:
        """Return the rank, from 1, of `offset_` in `calibration_`; 0 if no image can be novel."""
        n = len(self.calibration_)
        return int(np.count_nonzero(np.arange(1, n + 1) / (n + 1) <= self.level))

    def _similarity(self, X: Array, group: Any = None, of_reference: Any = None) -> Array:
        """Return the k-th largest cosine (n,) to references of other groups."""
        xp, references, k = library_of(X), near(X, self.references_, np.float64), self.n_neighbors
        found = []
        for rows in gen_batches(len(X), _BLOCK_ROWS):
            cosine = normalize(xp.asarray(X[rows], dtype=xp.float64)) @ references.T
            if group is not None:
                cosine[near(X, group[rows, None] == of_reference)] = -np.inf
            if k == 1:
                found.append(xp.amax(cosine, axis=1))
            elif xp is np:
                found.append(np.partition(cosine, -k, axis=1)[:, -k])
            else:
                found.append(cosine.topk(k).values[:, -1])
        return xp.concatenate(found)


def _effective_size(is_low: Array, group: Array) -> float:
    """Return the number of independent draws with the standard error of the mean of `is_low`."""
    fraction, n_groups = is_low.mean(), len(np.unique(group))
    error = error_of_mean(is_low.astype(np.float64), group)
    if not 0 < fraction < 1 or not error > 0 or n_groups < 2:
        return float(n_groups)
    # The upper 99% bound of the error, which is uncertain for few groups.
    shrink = chi2.ppf(0.01, n_groups - 1) / (n_groups - 1)
    return float(np.clip(shrink * fraction * (1 - fraction) / error**2, 1, n_groups))
