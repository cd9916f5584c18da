"""DomainAdaptedClassifier: a head for images that look different from the labelled ones."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from featuretl._core.parameters import check_estimator_parameter, random_generator
from featuretl._core.statistics import CONFIDENCE, margin
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, read_groups
from featuretl._learning.labels import codes_of, is_label_sets, some_labels
from featuretl._learning.targets import ScoreMixin, Targets, as_matrix, read_targets
from featuretl.adaptation.gap import DomainGap, domain_gap, read_domains
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier
from featuretl.heads.views import head_has

if TYPE_CHECKING:
    import pandas as pd

_FLOATS = (np.float64, np.float32)
_FOLDS = 5  # of the labelled target rows

Source = tuple[Array, Array, Array | None]  # rows (n, d), class codes (n,), group codes (n,)


@dataclass(repr=False, eq=False, frozen=True)
class Adaptation:
    """The decision of a `DomainAdaptedClassifier` and its evidence; printed it is `explain()`.

    `right` has for "none" and "pooled" whether each of the k labelled target rows is predicted
    correctly while it is held out, (k,). It is empty with fewer than two different labelled rows.
    """

    method: str
    gap: DomainGap | None
    right: dict[str, Array]

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per method: `accuracy`; `gain` over "none" with its 95% interval, `low`, `high`."""
        import pandas as pd

        columns = "method", "accuracy", "gain", "low", "high"
        rows = [(name, of.mean(), *self.gain(name)) for name, of in self.right.items()]
        return pd.DataFrame(rows, columns=columns)

    def gain(self, name: str) -> tuple[float, float, float]:
        """Return the gain in accuracy over "none" on the labelled rows, and its 95% interval."""
        change = self.right[name].astype(int) - self.right["none"]
        won, lost, k = int((change > 0).sum()), int((change < 0).sum()), len(change)
        return (won - lost) / k, *_interval_of_gain(won, lost, k)

    def explain(self) -> str:
        """Return the decision and its reasons as sentences."""
        found = "The labelled target rows are too few to measure what they gain."
        if self.right:
            found = self._comparison()
        elif self.method == "none":
            found = (
                "Nothing was changed: without labels in the target, no test can show whether a "
                "change helps or harms. Label about 20 random target rows and pass y_target."
            )
        gap = self.gap.explain() if self.gap else "There are no target rows."
        return f"{gap}\n{found}\nMethod: {self.method}."

    def _comparison(self) -> str:
        k = len(self.right["none"])
        none, pooled = (self.right[name].mean() for name in ("none", "pooled"))
        gain, low, high = (100 * value for value in self.gain("pooled"))
        shown = [won for won in range(1, k + 1) if _interval_of_gain(won, 0, k)[0] > 0]
        least = f"a gain of under {100 * shown[0] / k:.0f} points" if shown else "any gain"
        return (
            f"On {k:,} labelled target rows, held out in {min(k, _FOLDS)} folds, the head has an "
            f"accuracy of {none:.3f} if it is trained on the source, and of {pooled:.3f} if it is "
            f"trained on both: a gain of {gain:+.1f} points, 95% interval {low:+.1f} to "
            f"{high:+.1f}. {k:,} labels cannot show {least}."
        )

    __repr__ = explain


@dataclass(eq=False, repr=False)
class DomainAdaptedClassifier(MetaEstimatorMixin, ScoreMixin, BaseEstimator):
    """A head for images that look different from most of the labelled ones.

    Most labels are of one domain (source), and the images to predict come from another (target):
    from another camera, or they are sketches instead of photographs. The head is trained on the
    source and on the few labelled rows of the target together ("pooled"), unless these rows, held
    out, show that the source alone predicts them better ("none"). Without labels in the target
    nothing is changed, and `decision_` says so.

    Parameters
    ----------
    estimator : classifier, default=None
        The head; None is `LinearProbeClassifier()`.
    random_state : int, RandomState or None, default=None
        Draws the folds of the labelled target rows and those of `domain_gap`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    method_ : {"pooled", "none"}
        What the head was trained on: both domains, or the source.
    decision_ : Adaptation
        The evidence: `decision_.explain()`, `decision_.candidates`, a table, and `decision_.gap`, a
        `DomainGap`. Model files do not contain it.
    estimator_ : classifier
        The fitted head.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    Notes
    -----
    Label random, independent target rows; 20 are a good number. Unlabelled ones serve `domain_gap`:
    aligning the moments of the domains lost up to 57 points where class proportions differed, and
    no criterion without labels could be trusted to notice (reverse validation, DEV, SND, entropy,
    mutual information and others; see ``benchmarks/README.md``). GridSearchCV scores source rows.

    Examples
    --------
    >>> import numpy as np
    >>> from featuretl import DomainAdaptedClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=400)
    >>> X = rng.normal(size=(400, 8)) + 2 * y[:, None]
    >>> source, target = X[:200], X[200:] + [6, 0, 0, 0, 0, 0, 0, 0]  # another camera
    >>> known = np.where(np.arange(200) < 20, y[200:], -1)  # twenty labels
    >>> unlabelled = DomainAdaptedClassifier(random_state=0).fit(source, y[:200], target)
    >>> unlabelled.method_, round(unlabelled.score(target[20:], y[220:]), 2)
    ('none', 0.81)
    >>> model = DomainAdaptedClassifier(random_state=0).fit(source, y[:200], target, known)
    >>> model.method_, round(model.score(target[20:], y[220:]), 2)
    ('pooled', 0.98)
    """

    estimator: Any = None
    _: KW_ONLY
    random_state: Any = None

    def fit(
        self, X: Any, y: Any, X_target: Any = None, y_target: Any = None, groups: Any = None
    ) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Finite embeddings of the source.
        y : array-like of shape (n,)
            Classes of the source, at least two.
        X_target : array-like of shape (m, d), default=None
            Finite embeddings of the target. Without them a FeatureTLWarning is issued.
        y_target : array-like of shape (m,), default=None
            Classes of the target rows; -1, None, NaN and "" mark rows without a label.
        groups : array-like of shape (n,), default=None
            Groups of the source, for `domain_gap` and for heads that take them.

        Raises
        ------
        ParameterError, InputError
            If a parameter has an invalid value, widths or lengths differ, there are NaN, or
            `y_target` has other classes than `y`.
        """
        owner = type(self).__name__
        X = as_matrix(self, X, dtype=_FLOATS)
        targets = read_targets(self, y, len(X), multilabel=False)
        source = X, targets.codes, read_groups(owner, groups, len(X))
        rng = random_generator(owner, self.random_state)
        T, known, codes = self._read_target(X, targets, X_target, y_target)
        self.classes_, self.estimator_ = targets.classes, self._fitted(targets.classes, *source)
        gap, right = None, {}
        if len(T):
            gap = domain_gap(X, T, targets.codes, groups=groups, random_state=rng)
            right = self._held_out(source, T[known], codes, rng)
        decision = Adaptation("pooled" if len(codes) else "none", gap, right)
        if right and decision.gain("pooled")[2] < 0:
            decision = replace(decision, method="none")
        if decision.method == "pooled":
            self.estimator_ = self._pooled(source, T[known], codes)
        self.decision_, self.method_ = decision, decision.method
        return self

    def predict(self, X: Any) -> Array:
        """Return the classes of the rows X (m, d): (m,)."""
        return self._respond("predict", X)

    @available_if(head_has("predict_proba"))
    def predict_proba(self, X: Any) -> Array:
        """Return the head's probabilities for the rows X (m, d): (m, n_classes)."""
        return self._respond("predict_proba", X)

    @available_if(head_has("decision_function"))
    def decision_function(self, X: Any) -> Array:
        """Return the head's decision values for the rows X (m, d)."""
        return self._respond("decision_function", X)

    def _respond(self, method: str, X: Any) -> Array:
        X = as_matrix(self, X, reset=False, dtype=_FLOATS)
        return getattr(self.estimator_, method)(X)

    def _read_target(
        self, X: Array, targets: Targets, X_target: Any, y_target: Any
    ) -> tuple[Array, Array, Array]:
        """Return the target rows (m, d), those that have a label, (k,), and its codes (k,)."""
        owner, none = type(self).__name__, np.zeros(0, int)
        if X_target is None:
            if y_target is not None:
                raise InputError(f"{owner} got y_target without X_target; pass both.")
            words = f"{owner} got no X_target and trains on the source alone; pass target rows."
            warnings.warn(words, FeatureTLWarning, stacklevel=3)
            return X[:0], none, none
        read_domains(X, X_target)
        T = as_matrix(self, X_target, reset=False, dtype=_FLOATS)
        if y_target is None:
            return T, none, none
        labels, known = some_labels(owner, y_target, "y_target", minus_one=True)
        if len(known) != len(T) or is_label_sets(labels) or labels.size != len(labels):
            raise InputError(
                f"y_target of {owner} must hold one label, -1 or None for each of the {len(T)} "
                f"rows of X_target; got {len(known)} rows of {labels.shape[1:] or 'labels'}."
            )
        names = labels.ravel(), targets.classes, "y_target", "y does not hold"
        return T, np.flatnonzero(known), codes_of(owner, *names) if len(labels) else none

    def _held_out(self, source: Source, T: Array, codes: Array, rng: Any) -> dict[str, Array]:
        """Return whether each labelled target row, (k, d), is predicted while it is held out."""
        units = copies_of(T)
        units = np.arange(len(T)) if units is None else units
        fold = (rng.permutation(units.max(initial=-1) + 1) % _FOLDS)[units]
        if not fold.any():
            return {}
        truth, pooled = self.classes_[codes], np.empty(len(T), bool)
        for k in np.unique(fold):
            train, test = fold != k, fold == k
            head = self._pooled(source, T[train], codes[train])
            pooled[test] = head.predict(T[test]) == truth[test]
        return {"none": self.estimator_.predict(T) == truth, "pooled": pooled}

    def _pooled(self, source: Source, T: Array, more: Array) -> Any:
        """Return the head, fitted to the source and to labelled target rows."""
        X, codes, group = source
        if group is not None:
            group = np.append(group, group.max() + 1 + np.arange(len(T)))
        return self._fitted(self.classes_, np.vstack([X, T]), np.append(codes, more), group)

    def _fitted(self, classes: Array, X: Array, codes: Array, group: Array | None) -> Any:
        head = self._head()
        groups = {"groups": group} if has_fit_parameter(head, "groups") else {}
        return head.fit(X, classes[codes], **groups)

    def _head(self) -> Any:
        check_estimator_parameter(type(self).__name__, "estimator", self.estimator)
        return LinearProbeClassifier() if self.estimator is None else clone(self.estimator)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = get_tags(self._head()).classifier_tags.multi_class
        return tags


def _interval_of_gain(won: int, lost: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of (won - lost) / n, paired (Agresti and Min 2005).

    Half a row is added to each cell of the table, so that the interval is honest for few rows.
    """
    mean, n = (won - lost) / (n + 2), n + 2
    half = margin(CONFIDENCE, n) * np.sqrt(((won + lost + 1) / n - mean**2) / n)
    return max(float(mean - half), -1.0), min(float(mean + half), 1.0)
