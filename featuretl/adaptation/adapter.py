"""DomainAdapter: align the embeddings of two domains where that helps."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import check_estimator_parameter, check_option, random_generator
from featuretl._core.statistics import Gain, gain_of
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds, fold_of_rows
from featuretl._learning.groups import read_groups, subset
from featuretl._learning.labels import one_label_each
from featuretl._learning.refit import forget
from featuretl._learning.targets import Targets, as_matrix
from featuretl.adaptation.gap import DomainGap, domain_gap, read_domains, sampled
from featuretl.adaptation.maps import METHODS, align, mapped
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier

if TYPE_CHECKING:
    import pandas as pd


_FLOATS = (np.float64, np.float32)
# The second must beat the first.
_TRIED = ("none", "moments")


@dataclass(eq=False, frozen=True)
class Adaptation:
    """The choice of `DomainAdapter(method="auto")` and its evidence; printed it is `explain()`.

    Attributes
    ----------
    method : str
        The method that was chosen.
    gap : DomainGap
    right : dict of str to ndarray of shape (k,)
        For each method that was tried, whether reverse validation was right about each row.
    gain : Gain or None
        The gain of the last method that was tried over the one before; None if none was tried.
    folds : int
    """

    method: str
    gap: DomainGap
    right: dict[str, Array]
    gain: Gain | None
    folds: int

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per method that was tried: `method` and `reverse_score`."""
        import pandas as pd

        scores = [float(right.mean()) for right in self.right.values()]
        return pd.DataFrame({"method": list(self.right), "reverse_score": scores})

    def explain(self) -> str:
        """Return what was decided and why, in plain sentences."""
        lines = [self.gap.explain()]
        if self.gain is None:
            return "\n".join([*lines, "So nothing was changed."])
        scores = ", ".join(f"{name} {right.mean():.3f}" for name, right in self.right.items())
        gained = f"{100 * self.gain.mean:+.1f} +- {100 * self.gain.error:.1f} points"
        clear = "which is clear" if self.gain.is_clear else "less than one standard error"
        validation = (
            f"Reverse validation, {self.folds} folds, {self.gain.images:,} rows of the source: {scores}; "
            f"a difference of {gained}, {clear}. Chosen: {self.method}."
        )
        return "\n".join([*lines, validation])

    def __str__(self) -> str:
        return self.explain()

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())


class DomainAdapter(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Align the embeddings of labelled images (source) and unlabelled ones (target) that look different.

    The target is, for instance, another camera, or sketches instead of photographs. `fit_transform`
    returns the source's rows, to train a head on; `transform` takes rows of the target, for the head
    to predict from.

    Parameters
    ----------
    method : {"auto", "moments", "coral", "none"}, default="auto"
        - "moments": each feature gets the mean and the standard deviation that it has in the source;
        - "coral": the source gets the covariance of the target;
        - "none": nothing is changed;
        - "auto": "moments" or "none", by the evidence; see Notes.
    estimator : classifier, default=None
        The head that "auto" compares the methods with; None is a `LinearProbeClassifier` with
        balanced classes.
    cv : int or splitter, default=3
        Folds of "auto".
    random_state : int, RandomState or None, default=None
        Draws the folds, and 5,000 rows of each domain for "auto" where there are more.

    Attributes
    ----------
    method_ : str
        The method in use.
    decision_ : Adaptation
        With "auto": the evidence; `decision_.explain()`, and `decision_.gap`, a `DomainGap`.
    n_features_in_ : int
        Columns of X.
    feature_names_in_ : ndarray of shape (d,)
        Names of the columns, where X has names.

    Notes
    -----
    The target has no labels, so the choice of "auto" is not certain. It takes two tests. First,
    `domain_gap`: a classifier must distinguish source and target after the source is weighted to the
    target's class proportions; otherwise they differ in the proportions at most, and aligning would
    do harm. Second, reverse validation (Zhong et al. 2010, doi:10.1007/978-3-642-15939-8_35): a head
    trained on the source labels the target, a second head is trained on these labels, and is scored
    on held-out source rows. "moments" is chosen if its gain exceeds one standard error.

    "moments" assumes equal class proportions in both domains. Where they differ and the images look
    different, too, `decision_.gap.prior_shift` is large, and no method here is safe.

    Subspace alignment and importance weighting were measured and left out, see
    ``benchmarks/adaptation.py``.

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

    In a pipeline, the rows of the target are metadata::

        sklearn.set_config(enable_metadata_routing=True)
        adapter = DomainAdapter().set_fit_request(X_target=True)
        make_pipeline(adapter, LinearProbeClassifier()).fit(X, y, X_target=X_target)
    """

    def __init__(
        self, method: str = "auto", *, estimator: Any = None, cv: Any = 3, random_state: Any = None
    ) -> None:
        self.method = method
        self.estimator = estimator
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, X_target: Any = None, groups: Any = None) -> Self:
        """Learn the alignment of source and target.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings of the source; finite.
        y : array-like of shape (n,), default=None
            Classes of the source; "auto" needs them.
        X_target : array-like of shape (m, d), default=None
            Embeddings of the target. Without them nothing is changed, with a warning.
        groups : array-like of shape (n,), default=None
            Rows of one group are held out together by "auto".

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If widths or lengths differ, there are NaN, or "auto" has no classes.

        Warns
        -----
        FeatureTLWarning
            If there is no target.
        """
        self._fit(X, y, X_target, groups)
        return self

    def fit_transform(
        self, X: Any, y: Any = None, X_target: Any = None, groups: Any = None
    ) -> Array:
        """Learn the alignment, and return the rows of the source, to train a head on.

        Parameters
        ----------
        X, y, X_target, groups
            As for `fit`.

        Returns
        -------
        ndarray of shape (n, d)
            `X`, changed by "coral" only. ``fit(..).transform(X)`` differs: it takes rows of the
            target.
        """
        source = self._fit(X, y, X_target, groups)
        return mapped(self._alignment.source, source)

    def transform(self, X: Any) -> Array:
        """Return rows of the target, aligned for a head that was trained on the source.

        Parameters
        ----------
        X : array-like of shape (m, d)
            Embeddings of images of the target.

        Returns
        -------
        ndarray of shape (m, d), float32 or float64
        """
        check_is_fitted(self)
        return mapped(self._alignment.target, as_matrix(self, X, reset=False, dtype=_FLOATS))

    def _fit(self, X: Any, y: Any, X_target: Any, groups: Any) -> Array:
        """Learn the alignment; return X as an array."""
        owner = type(self).__name__
        check_option(owner, "method", self.method, ("auto", *METHODS))
        check_folds(owner, self.cv)
        check_estimator_parameter(owner, "estimator", self.estimator)
        forget(self)
        source = as_matrix(self, X, dtype=_FLOATS)
        if X_target is None:
            if self.method != "none":
                message = "DomainAdapter got no X_target, images of the target: nothing is changed."
                warnings.warn(message, FeatureTLWarning, stacklevel=3)
            self.method_, target = "none", source
        else:
            source, target = read_domains(source, X_target)
            self.method_ = self.method
            if self.method == "auto":
                self.decision_ = self._decide(source, y, target, groups)
                self.method_ = self.decision_.method
        self._alignment = align(self.method_, source, target)
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
        fold, n_folds = fold_of_rows(owner, targets, group, self.cv, rng, X=source)
        right = {name: self._reversed(name, source, codes, target, fold) for name in _TRIED}
        chosen, challenger = _TRIED
        gain = gain_of(right[challenger], right[chosen], group)
        return Adaptation(challenger if gain.is_clear else chosen, gap, right, gain, n_folds)

    def _reversed(
        self, method: str, source: Array, codes: Array, target: Array, fold: Array
    ) -> Array:
        """Return 1 for each row that reverse validation was right about; NaN if never held out."""
        right = np.full(len(codes), np.nan)
        for k in range(fold.max() + 1):
            train, held_out = fold != k, fold == k
            labels = self._predicted(method, source[train], codes[train], target, target)
            right[held_out] = 0.0
            if len(np.unique(labels)) > 1:
                back = self._predicted(method, target, labels, source[train], source[held_out])
                right[held_out] = back == codes[held_out]
        return right

    def _predicted(self, method: str, X: Array, codes: Array, other: Array, rows: Array) -> Array:
        """Return what a head trained on X predicts for `rows` of the other domain."""
        alignment = align(method, X, other)
        head = LinearProbeClassifier(class_weight="balanced")
        head = head if self.estimator is None else clone(self.estimator)
        head.fit(mapped(alignment.source, X), codes)
        found: Array = np.asarray(head.predict(mapped(alignment.target, rows)))
        return found
