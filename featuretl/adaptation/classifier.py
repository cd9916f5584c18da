"""DomainAdaptedClassifier: a head for images that look different from the labelled ones."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from featuretl._core.parameters import check_estimator_parameter, check_option, random_generator
from featuretl._core.statistics import CONFIDENCE, Gain, gain_of, margin
from featuretl._core.types import Array
from featuretl._learning.groups import copies_of, read_groups
from featuretl._learning.labels import codes_of, is_label_sets, some_labels
from featuretl._learning.targets import ScoreMixin, Targets, as_matrix, read_targets
from featuretl.adaptation.gap import DomainGap, domain_gap, read_domains
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads.linear import LinearProbeClassifier

if TYPE_CHECKING:
    import pandas as pd

_FLOATS = (np.float64, np.float32)
_LEAST = 1e-6  # smallest probability in a log-loss, and relative standard deviation of a feature
_FOLDS = 5  # of the labelled target rows

Source = tuple[Array, Array, Array | None]  # rows (n, d), class codes (n,), group codes (n,)
Maps = tuple[Array, Array]  # scale and shift (d,)


@dataclass(repr=False, eq=False, frozen=True)
class Adaptation:
    """The method of a `DomainAdaptedClassifier` and its evidence; printed it is `explain()`.

    `right` and `loss` have for each candidate, and each of the k labelled target rows, whether its
    prediction is correct and the log-loss, (k,); they are empty without labels of the target.
    """

    method: str
    gap: DomainGap | None
    right: dict[str, Array]
    loss: dict[str, Array]

    @property
    def candidates(self) -> pd.DataFrame:
        """A row per candidate, measured on the labelled target rows.

        `accuracy`; `gain` in accuracy over "none" with its 95% interval, `low` and `high`; and
        `log_loss`, which decides.
        """
        import pandas as pd

        rows = [
            {"method": name, "accuracy": right.mean(), **self._gain(name)}
            | {"log_loss": self.loss[name].mean()}
            for name, right in self.right.items()
        ]
        return pd.DataFrame(rows)

    def loss_gain(self, name: str) -> Gain:
        """Return the decrease of the log-loss from "none" to a candidate."""
        return gain_of(-self.loss[name], -self.loss["none"])

    def _gain(self, name: str) -> dict[str, float]:
        won, lost = (
            int((self.right[a] > self.right[b]).sum()) for a, b in ((name, "none"), ("none", name))
        )
        low, high = _interval_of_gain(won, lost, len(self.right[name]))
        return {"gain": (won - lost) / len(self.right[name]), "low": low, "high": high}

    def explain(self) -> str:
        """Return the decision and its reasons as sentences."""
        lines = [self.gap.explain()] if self.gap else ["There are no target rows."]
        if self.right:
            lines += self._comparison()
        elif self.method == "none":
            lines.append(
                "Nothing was changed: without labels in the target, no test can show whether a "
                "change helps or harms. Label about 20 random target rows and pass y_target."
            )
        return "\n".join([*lines, f"Method: {self.method}."])

    def _comparison(self) -> list[str]:
        k = len(self.right["none"])
        scores = ", ".join(f"{name} {right.mean():.3f}" for name, right in self.right.items())
        lines = [f"Accuracy on {k:,} labelled target rows, which are held out: {scores}."]
        for name in list(self.right)[1:]:
            gain, low, high = (100 * value for value in self._gain(name).values())
            loss = self.loss_gain(name)
            lines.append(
                f"{name} gains {gain:+.1f} points (95% interval {low:+.1f} to {high:+.1f}), and "
                f"{loss.mean:+.3f} +- {loss.error:.3f} in log-loss, which is "
                f"{'clear' if loss.is_clear else 'not more than one standard error'}."
            )
        shown = [won for won in range(1, k + 1) if _interval_of_gain(won, 0, k)[0] > 0]
        least = f"a gain of under {100 * shown[0] / k:.0f} points" if shown else "any gain"
        return [*lines, f"{k:,} labels cannot show {least} in accuracy with confidence."]

    __repr__ = explain

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(line)}</p>" for line in self.explain().splitlines())


class _Labelled(NamedTuple):
    """Target rows (k, d) and their class codes (k,)."""

    X: Array
    codes: Array


def _head_has(method: str) -> Any:
    """Return a check of whether the head, fitted or not, has a method."""

    def check(self: DomainAdaptedClassifier) -> bool:
        getattr(getattr(self, "estimator_", self._head()), method)
        return True

    return check


@dataclass(eq=False, repr=False)
class DomainAdaptedClassifier(MetaEstimatorMixin, ScoreMixin, BaseEstimator):
    """A head that is trained on one domain (source) and predicts images of another (target).

    The target's images look different: they come from another camera, or are sketches instead of
    photographs. Few of them, or none, have labels. All predictions are for target rows.

    Parameters
    ----------
    estimator : classifier, default=None
        The head; None is `LinearProbeClassifier()`.
    method : {"auto", "pooled", "moments", "none"}, default="auto"
        - "pooled": train on the source and the labelled target rows together;
        - "moments": give each feature of the target its mean and standard deviation in the source.
          It assumes equal class proportions in both domains, and can do great harm otherwise;
        - "none": train on the source alone;
        - "auto": of these three, the one that predicts the labelled target rows best, if it beats
          "none" clearly; "none" if no target row has a label.
    random_state : int, RandomState or None, default=None
        Draws the folds of the labelled target rows and those of `domain_gap`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    method_ : str
        The method in use.
    decision_ : Adaptation
        The evidence: `decision_.explain()`, `decision_.candidates`, a table, and `decision_.gap`, a
        `DomainGap`. Model files do not contain it.
    estimator_ : classifier
        The fitted head.
    scale_, shift_ : ndarray of shape (d,)
        With "moments": the head sees ``X * scale_ + shift_``.
    n_features_in_, feature_names_in_ : as in `LinearProbeClassifier`

    See Also
    --------
    featuretl.adaptation.domain_gap : Measures how the domains differ.

    Notes
    -----
    "auto" cross-validates "pooled" on the labelled target rows in five folds, and compares
    log-losses: a method must gain more than one standard error over "none". Label random target
    rows; twenty is a good number. Without labels, "auto" changes nothing, as none of the criteria
    that were tried could be trusted (reverse validation, DEV, SND, entropy, mutual information and
    others): see ``benchmarks/README.md``.

    Rows of the source are no test of "moments": do not tune it with scores of held-out source rows.

    Examples
    --------
    >>> import numpy as np
    >>> from featuretl import DomainAdaptedClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=400)
    >>> X = rng.normal(size=(400, 8)) + 2 * y[:, None]
    >>> source, target = X[:200], 3 * X[200:] + 10  # another camera
    >>> known = np.where(np.arange(200) < 20, y[200:], -1)  # twenty labels
    >>> unlabelled = DomainAdaptedClassifier(random_state=0).fit(source, y[:200], target)
    >>> model = DomainAdaptedClassifier(random_state=0).fit(source, y[:200], target, known)
    >>> unlabelled.method_, unlabelled.score(target[20:], y[220:])
    ('none', 0.5555555555555556)
    >>> model.method_, model.score(target[20:], y[220:])
    ('moments', 1.0)

    In a pipeline, the target's images pass the same steps::

        sklearn.set_config(enable_metadata_routing=True)
        head = DomainAdaptedClassifier().set_fit_request(X_target=True, y_target=True)
        pipe = make_pipeline(ImageEmbedder(), head, transform_input=["X_target"])
        pipe.fit(images, y, X_target=new_images, y_target=y_target)
    """

    estimator: Any = None
    _: KW_ONLY
    method: str = "auto"
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
            Finite embeddings of the target. Without them the classifier issues a FeatureTLWarning
            and trains on the source alone.
        y_target : array-like of shape (m,), default=None
            Classes of the target rows; -1, None, NaN and "" mark rows without a label.
        groups : array-like of shape (n,), default=None
            Groups of the source, for `domain_gap` and for heads that take them.

        Raises
        ------
        ParameterError, InputError
            If a parameter has an invalid value, widths or lengths differ, there are NaN, `y_target`
            has other classes than `y`, or "pooled" has no labelled target row.
        """
        owner = type(self).__name__
        check_option(owner, "method", self.method, ("auto", "pooled", "moments", "none"))
        check_estimator_parameter(owner, "estimator", self.estimator)
        X = as_matrix(self, X, dtype=_FLOATS)
        targets = read_targets(self, y, len(X), multilabel=False)
        self.classes_ = targets.classes
        source = X, targets.codes, read_groups(owner, groups, len(X))
        rng = random_generator(owner, self.random_state)
        T, labelled = self._read_target(X, targets, X_target, y_target)
        if self.method == "pooled" and not len(labelled.codes):
            raise InputError(f"{owner}(method='pooled') needs labels in y_target; got none.")
        head = self._fitted(*source)
        if T is None:
            self.decision_ = Adaptation("none", None, {}, {})
        else:
            gap = domain_gap(X, T, targets.codes, groups=groups, random_state=rng)
            maps = _moments(X, T)
            self.decision_ = self._decide(head, maps, source, labelled, gap, rng)
        self.method_ = self.decision_.method
        if self.method_ == "moments":
            self.scale_, self.shift_ = maps
        if self.method_ == "pooled":
            head = self._pooled(source, labelled)
        self.estimator_ = head
        return self

    def predict(self, X: Any) -> Array:
        """Return the classes of target rows X (m, d): (m,)."""
        return self._respond("predict", X)

    @available_if(_head_has("predict_proba"))
    def predict_proba(self, X: Any) -> Array:
        """Return the head's probabilities for target rows X (m, d): (m, n_classes)."""
        return self._respond("predict_proba", X)

    @available_if(_head_has("decision_function"))
    def decision_function(self, X: Any) -> Array:
        """Return the head's decision values for target rows X (m, d)."""
        return self._respond("decision_function", X)

    def _respond(self, method: str, X: Any) -> Array:
        X = as_matrix(self, X, reset=False, dtype=_FLOATS)
        X = _affine(X, self.scale_, self.shift_) if self.method_ == "moments" else X
        return getattr(self.estimator_, method)(X)

    def _read_target(
        self, X: Array, targets: Targets, X_target: Any, y_target: Any
    ) -> tuple[Array | None, _Labelled]:
        """Return the target rows (m, d), or None, and those that have a label."""
        owner, none = type(self).__name__, _Labelled(X[:0], targets.codes[:0])
        if X_target is None:
            if y_target is not None:
                raise InputError(f"{owner} got y_target without X_target; pass both.")
            words = f"{owner} got no X_target and trains on the source alone; pass target rows."
            warnings.warn(words, FeatureTLWarning, stacklevel=3)
            return None, none
        read_domains(X, X_target)
        T = as_matrix(self, X_target, reset=False, dtype=_FLOATS)
        if y_target is None:
            return T, none
        labels, known = some_labels(owner, y_target, "y_target", minus_one=True)
        if len(known) != len(T) or is_label_sets(labels) or labels.size != len(labels):
            raise InputError(
                f"y_target of {owner} must hold one label, -1 or None for each of the {len(T)} "
                f"rows of X_target; got {len(known)} rows of {labels.shape[1:] or 'labels'}."
            )
        if not len(labels):
            return T, none
        names = labels.ravel(), targets.classes, "y_target"
        return T, _Labelled(T[known], codes_of(owner, *names, unknown="y does not hold"))

    def _decide(
        self, head: Any, maps: Maps, source: Source, labelled: _Labelled, gap: DomainGap, rng: Any
    ) -> Adaptation:
        """Return the method, and what each candidate predicts for the labelled target rows."""
        rows, codes = labelled
        if not len(rows):
            method = "none" if self.method == "auto" else self.method
            return Adaptation(method, gap, {}, {})
        proba = {"none": _proba(head, rows), "moments": _proba(head, _affine(rows, *maps))}
        units = copies_of(rows)
        units = np.arange(len(rows)) if units is None else units
        fold = (rng.permutation(units.max() + 1) % _FOLDS)[units]
        if fold.any():
            proba["pooled"] = np.empty_like(proba["none"])
            for k in np.unique(fold):
                train = _Labelled(rows[fold != k], codes[fold != k])
                proba["pooled"][fold == k] = _proba(self._pooled(source, train), rows[fold == k])
        right = {name: (p.argmax(axis=1) == codes).astype(float) for name, p in proba.items()}
        true = {name: p[np.arange(len(codes)), codes] for name, p in proba.items()}
        loss = {name: -np.log(np.maximum(p, _LEAST)) for name, p in true.items()}
        found = Adaptation(self.method, gap, right, loss)
        better = [name for name in loss if found.loss_gain(name).is_clear]
        best = min(better, key=lambda name: loss[name].mean(), default="none")
        return found if self.method != "auto" else replace(found, method=best)

    def _pooled(self, source: Source, labelled: _Labelled) -> Any:
        """Return the head, fitted to the source and to labelled target rows."""
        X, codes, group = source
        if group is not None:
            group = np.append(group, group.max() + 1 + np.arange(len(labelled.codes)))
        return self._fitted(np.vstack([X, labelled.X]), np.append(codes, labelled.codes), group)

    def _fitted(self, X: Array, codes: Array, group: Array | None) -> Any:
        head = self._head()
        groups = {"groups": group} if has_fit_parameter(head, "groups") else {}
        return head.fit(X, self.classes_[codes], **groups)

    def _head(self) -> Any:
        check_estimator_parameter(type(self).__name__, "estimator", self.estimator)
        return LinearProbeClassifier() if self.estimator is None else clone(self.estimator)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = get_tags(self._head()).classifier_tags.multi_class
        return tags


def _proba(head: Any, X: Array) -> Array:
    """Return probabilities (n, n_classes), or 0 and 1 from a head that has none."""
    if hasattr(head, "predict_proba"):
        return np.asarray(head.predict_proba(X))
    return (head.predict(X)[:, None] == head.classes_).astype(float)


def _affine(X: Array, scale: Array, shift: Array) -> Array:
    return (X * scale + shift).astype(X.dtype, copy=False)


def _moments(source: Array, target: Array) -> Maps:
    """Return scale and shift, (d,), from the target's to the source's mean and deviation.

    A linear head on standardised features thus gets each domain standardised separately, as in
    AdaBN (Li et al. 2018, doi:10.1016/j.patcog.2018.03.005).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    own = target.std(axis=0)
    constant = own <= _LEAST * own.max()
    scale = np.where(constant, 1.0, source.std(axis=0) / np.where(constant, 1.0, own))
    return scale, source.mean(axis=0) - scale * target.mean(axis=0)


def _interval_of_gain(won: int, lost: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of (won - lost) / n, paired (Agresti and Min 2005).

    Half a row is added to each cell of the table, so that the interval is honest for few rows.
    """
    mean, n = (won - lost) / (n + 2), n + 2
    half = margin(CONFIDENCE, n) * np.sqrt(((won + lost + 1) / n - mean**2) / n)
    return max(float(mean - half), -1.0), min(float(mean + half), 1.0)
