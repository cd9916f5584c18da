"""DomainAdapter: align the embeddings of two domains if that improves predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.covariance import ledoit_wolf
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_estimator_parameter, check_option, random_generator
from featuretl._core.statistics import Gain, gain_of
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.labels import one_label_each
from featuretl._learning.targets import Targets, as_matrix
from featuretl.adaptation.gap import DomainGap, domain_gap, read_domains, sampled
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier

if TYPE_CHECKING:
    import pandas as pd

Map = Callable[[Array], Array]

_FLOATS = (np.float64, np.float32)
_LEAST = 1e-6  # less than this fraction of the largest eigenvalue or standard deviation is noise


@dataclass(repr=False, eq=False, frozen=True)
class Adaptation:
    """The choice of `DomainAdapter(method="auto")` and its evidence; printed it is `explain()`.

    `right` has for each method tried whether reverse validation predicted each row correctly, (k,);
    `gain` is that of "moments" over "none". If the gap is not clear, nothing was tried.
    """

    method: str
    gap: DomainGap
    right: dict[str, Array]
    gain: Gain | None
    folds: int

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per method tried: `method` and `reverse_score`."""
        import pandas as pd

        scores = [float(right.mean()) for right in self.right.values()]
        return pd.DataFrame({"method": list(self.right), "reverse_score": scores})

    def explain(self) -> str:
        """Return the decision and its reasons as sentences."""
        if self.gain is None:
            return f"{self.gap.explain()}\nThe embeddings are not changed."
        scores = ", ".join(f"{name} {right.mean():.3f}" for name, right in self.right.items())
        gained = f"{100 * self.gain.mean:+.1f} +- {100 * self.gain.error:.1f} points"
        clear = "which is clear" if self.gain.is_clear else "less than one standard error"
        validation = (
            f"Reverse validation, {self.folds} folds of {self.gain.images:,} source rows: {scores}"
            f"; a difference of {gained}, {clear}. Chosen: {self.method}."
        )
        return f"{self.gap.explain()}\n{validation}"

    __repr__ = explain

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())


@dataclass(eq=False, repr=False)
class DomainAdapter(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Align the embeddings of labelled images (source) and of different-looking ones (target).

    The target has no labels; its images come, for instance, from another camera, or are sketches
    instead of photographs. `fit_transform` returns the source rows to train a head on; `transform`
    takes target rows and returns the rows for the head to predict from.

    Parameters
    ----------
    method : {"auto", "moments", "coral", "none"}, default="auto"
        - "moments": give each feature of the target its mean and standard deviation in the source;
        - "coral": give the source the covariance of the target;
        - "none": change nothing;
        - "auto": choose "moments" or "none" by the evidence; see Notes.
    estimator : classifier, default=None
        The head that "auto" compares the methods with; None is a `LinearProbeClassifier` with
        balanced classes.
    cv : int or splitter, default=3
        Folds of "auto".
    random_state : int, RandomState or None, default=None
        Draws the folds of "auto", and 5,000 rows of a domain that has more.

    Attributes
    ----------
    method_ : str
        The method in use.
    decision_ : Adaptation
        With "auto": the evidence, `decision_.explain()` and `decision_.gap`, a `DomainGap`.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    Notes
    -----
    "auto" uses two tests, but is not certain, because the target has no labels. First,
    `domain_gap`: a classifier must distinguish source and target after the source is weighted to
    the target's class proportions; otherwise the domains differ at most in these, and aligning
    would do harm. Second, reverse validation (Zhong et al. 2010, doi:10.1007/978-3-642-15939-8_35):
    a head trained on the source labels the target, and a second head, trained on these labels, is
    scored on held-out source rows. "auto" chooses "moments" if its gain exceeds one standard error.

    "moments" assumes equal class proportions in both domains. If both the proportions and the look
    of the images differ, `decision_.gap.prior_shift` is large, and no method here is safe.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from featuretl import DomainAdapter, LinearProbeClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=400)
    >>> X = rng.normal(size=(400, 8)) + 2 * y[:, None]
    >>> source, target = X[:200], 3 * X[200:] + 10  # another camera
    >>> adapter = DomainAdapter(random_state=0)
    >>> head = LinearProbeClassifier().fit(
    ...     adapter.fit_transform(source, y[:200], X_target=target), y[:200])
    >>> adapter.method_, head.score(target, y[200:]), head.score(adapter.transform(target), y[200:])
    ('moments', 0.55, 1.0)

    In a pipeline, pass the rows of the target as metadata::

        sklearn.set_config(enable_metadata_routing=True)
        adapter = DomainAdapter().set_fit_request(X_target=True)
        make_pipeline(adapter, LinearProbeClassifier()).fit(X, y, X_target=X_target)
    """

    method: str = "auto"
    _: KW_ONLY
    estimator: Any = None
    cv: Any = 3
    random_state: Any = None

    def fit(self, X: Any, y: Any = None, X_target: Any = None, groups: Any = None) -> Self:
        """Fit the alignment of source and target.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Finite embeddings of the source.
        y : array-like of shape (n,), default=None
            Classes of the source; required by "auto".
        X_target : array-like of shape (m, d), default=None
            Finite embeddings of the target. Without them the adapter issues a FeatureTLWarning and
            changes nothing.
        groups : array-like of shape (n,), default=None
            Rows of one group are held out together by "auto".

        Raises
        ------
        ParameterError, InputError
            If a parameter has an invalid value, widths or lengths differ, there are NaN, or "auto"
            has no `y`.
        """
        self._fit(X, y, X_target, groups)
        return self

    def fit_transform(
        self, X: Any, y: Any = None, X_target: Any = None, groups: Any = None
    ) -> Array:
        """Fit the alignment and return the source rows (n, d) to train a head on.

        Only "coral" changes them. ``fit(..).transform(X)`` differs, as it takes target rows.
        """
        source = self._fit(X, y, X_target, groups)
        return self._source_map(source)

    def transform(self, X: Any) -> Array:
        """Return target rows X (m, d), aligned for a head that was trained on the source."""
        check_is_fitted(self)
        return self._target_map(as_matrix(self, X, reset=False, dtype=_FLOATS))

    def _fit(self, X: Any, y: Any, X_target: Any, groups: Any) -> Array:
        """Fit the alignment; return X as an array."""
        owner = type(self).__name__
        check_option(owner, "method", self.method, ("auto", "none", "moments", "coral"))
        check_folds(owner, self.cv)
        check_estimator_parameter(owner, "estimator", self.estimator)
        source = as_matrix(self, X, dtype=_FLOATS)
        if X_target is None:
            if self.method != "none":
                words = "DomainAdapter got no X_target and changes nothing; pass target embeddings."
                warnings.warn(words, FeatureTLWarning, stacklevel=3)
            self.method_, target = "none", source
        else:
            source, target = read_domains(source, X_target)
            self.method_ = self.method
            if self.method == "auto":
                self.decision_ = self._decide(source, y, target, groups)
                self.method_ = self.decision_.method
        self._source_map, self._target_map = _align(self.method_, source, target)
        return source

    def _decide(self, source: Array, y: Any, target: Array, groups: Any) -> Adaptation:
        if y is None:
            raise InputError("DomainAdapter(method='auto') needs y, the classes of the source.")
        owner = type(self).__name__
        y = one_label_each(owner, y)
        check_classification_targets(y)
        rng = random_generator(owner, self.random_state)
        group = read_groups(owner, groups, len(source))
        gap = domain_gap(source, target, y, groups=groups, random_state=rng)
        if not gap.is_clear:
            return Adaptation("none", gap, {}, None, 0)
        some = sampled(len(source), rng)
        source, group, target = source[some], subset(group, some), target[sampled(len(target), rng)]
        classes, codes = np.unique(y[some], return_inverse=True)
        targets = Targets(classes, codes)
        fold = fold_of_rows(owner, targets, group, self.cv, rng, X=source)
        rows = source, codes, target, fold
        right = {name: self._reverse_validate(name, *rows) for name in ("none", "moments")}
        gain = gain_of(right["moments"], right["none"], group)
        method = "moments" if gain.is_clear else "none"
        return Adaptation(method, gap, right, gain, int(fold.max()) + 1)

    def _reverse_validate(
        self, method: str, source: Array, codes: Array, target: Array, fold: Array
    ) -> Array:
        """Return 1 for each row that is predicted correctly, else 0; NaN if never held out."""
        right = np.full(len(codes), np.nan)
        for k in range(fold.max() + 1):
            train, held_out = fold != k, fold == k
            labels = self._predict(method, source[train], codes[train], target, target)
            right[held_out] = 0.0
            if len(np.unique(labels)) > 1:
                back = self._predict(method, target, labels, source[train], source[held_out])
                right[held_out] = back == codes[held_out]
        return right

    def _predict(self, method: str, X: Array, codes: Array, other: Array, rows: Array) -> Array:
        """Return the predictions for `rows` of the other domain of a head trained on X."""
        map_X, map_rows = _align(method, X, other)
        head = LinearProbeClassifier(class_weight="balanced")
        head = head if self.estimator is None else clone(self.estimator)
        return np.asarray(head.fit(map_X(X), codes).predict(map_rows(rows)))


def _affine(center: Array, factor: Array, target: Array, X: Array) -> Array:
    """Return ``(X - center) * factor + target``, or ``@ factor`` for (d, d), in X's dtype."""
    Z = X - center
    Z = Z @ factor if factor.ndim == 2 else Z * factor
    Z += target
    return Z.astype(X.dtype, copy=False)


def _identity(X: Array) -> Array:
    return X


def _align(method: str, source: Array, target: Array) -> tuple[Map, Map]:
    """Return the maps of source and target rows, fitted in float64 to rows (n, d) and (m, d)."""
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if method == "moments":
        return _identity, _moments(source, target)
    return _coral(source, target) if method == "coral" else _identity, _identity


def _moments(source: Array, target: Array) -> Map:
    """Map the target to the mean and standard deviation of each feature in the source.

    A linear head on standardised features thus gets each domain standardised separately, as in
    AdaBN (Li et al. 2018, doi:10.1016/j.patcog.2018.03.005).
    """
    scale, own = source.std(axis=0), target.std(axis=0)
    constant = own <= _LEAST * own.max()
    factor = np.where(constant, 1.0, scale / np.where(constant, 1.0, own))
    return partial(_affine, target.mean(axis=0), factor, source.mean(axis=0))


def _coral(source: Array, target: Array) -> Map:
    """Map the source to the target's covariance and mean by CORAL (Sun 2016, arXiv:1511.05547).

    Features are divided by their standard deviation in the source; covariances are shrunk as by
    Ledoit and Wolf, as there may be more columns than rows.
    """
    scale = source.std(axis=0)
    scale = np.where(scale > _LEAST * scale.max(), scale, 1.0)
    whiten = _power(ledoit_wolf(source / scale)[0], -0.5)
    colour = _power(ledoit_wolf(target / scale)[0], 0.5)
    factor = (whiten @ colour) / scale[:, None] * scale
    return partial(_affine, source.mean(axis=0), factor, target.mean(axis=0))


def _power(covariance: Array, exponent: float) -> Array:
    values, vectors = eigh(covariance)
    values = np.maximum(values, _LEAST * values[-1])
    return (vectors * values**exponent) @ vectors.T
