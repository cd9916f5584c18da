"""Heads for embeddings of multiple views per image: pooled, or trained on all and averaged."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from featuretl._core.parameters import check_estimator_parameter, check_int, check_option
from featuretl._core.types import Array
from featuretl._learning.groups import read_groups
from featuretl._learning.responses import chosen_codes
from featuretl._learning.targets import ScoreMixin, as_matrix, read_targets, read_weight
from featuretl.exceptions import InputError
from featuretl.heads.linear import LinearProbeClassifier

_DTYPES = (np.float32, np.float64)


@dataclass(eq=False, repr=False)
class ViewPooling(TransformerMixin, BaseEstimator):
    """Pool the embeddings of an image's views into one; use it for tiles and for regression.

    Parameters
    ----------
    n_views : int >= 1
        Number of embeddings in a row: for ``ImageEmbedder(views=..)`` the int itself, 2 for "flip",
        10 for "ten-crop", 1 + r c for a grid of r rows and c columns.
    pooling : {"mean", "max", "mean+max"}, default="mean"
        Pooling of each feature; "mean+max" concatenates both. "max" finds what a single tile shows.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.

    See Also
    --------
    ViewsClassifier : Trains on every view and averages predictions.
    AttentionPoolingClassifier : Learns the weights of the views.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[1.0, 5.0, 3.0, 1.0]])  # two views of two features
    >>> ViewPooling(2).fit_transform(rows).tolist()
    [[2.0, 3.0]]
    >>> ViewPooling(2, pooling="max").fit_transform(rows).tolist()
    [[3.0, 5.0]]
    """

    n_views: int = 1
    _: KW_ONLY
    pooling: str = "mean"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and X (n, n_views x d), as `ViewsClassifier.fit` does.

        Nothing is fitted, and `y` is ignored.
        """
        options = ("mean", "max", "mean+max")
        check_option(type(self).__name__, "pooling", self.pooling, options)
        split_views(self, X, self.n_views, reset=True)
        return self

    def transform(self, X: Any) -> Array:
        """Return one embedding per image of X: (n, d), or (n, 2 d) for "mean+max"."""
        views = split_views(self, X, self.n_views, reset=False)
        parts = self.pooling.split("+")
        return np.hstack([views.mean(1) if part == "mean" else views.max(1) for part in parts])

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Return names such as "mean0": (n_features_out,), dtype object."""
        check_is_fitted(self)
        d = self.n_features_in_ // self.n_views
        names = [f"{name}{i}" for name in self.pooling.split("+") for i in range(d)]
        return np.array(names, dtype=object)


def head_has(method: str) -> Any:
    """Return a check of whether the head in `estimator_`, or else `_head()`, has a method."""

    def check(self: Any) -> bool:
        getattr(getattr(self, "estimator_", self._head()), method)
        return True

    return check


@dataclass(eq=False, repr=False)
class ViewsClassifier(MetaEstimatorMixin, ScoreMixin, BaseEstimator):
    """A head that is trained on every view of each image and averages its predictions over them.

    Training on views is data augmentation with cached embeddings: each view passes the backbone
    once. Averaging over views is test-time augmentation. All views of an image are in one row, so
    that no split separates them; heads that make their own splits get groups.

    Parameters
    ----------
    n_views : as in `ViewPooling`
    estimator : classifier, default=None
        The head; None is `LinearProbeClassifier()`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : classifier
        The fitted head, which takes d columns.
    n_features_in_ : int
        Number of columns of X.

    See Also
    --------
    ViewPooling : One embedding per image, for tiles, regression and multi-label classification.

    Notes
    -----
    A view has the weight ``1 / n_views`` if the head takes `sample_weight`, so that C means the
    same as without views. ``benchmarks/README.md`` has its accuracy and cost.

    References
    ----------
    Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
    Networks, 2012 (averaging predictions over crops).

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn.pipeline import make_pipeline
    >>> from featuretl import ImageEmbedder
    >>> images = load_sample_images().images
    >>> pipe = make_pipeline(ImageEmbedder(views="flip", cache=None), ViewsClassifier(2))
    >>> pipe.fit(images, ["temple", "flower"]).predict(images).tolist()
    ['temple', 'flower']
    """

    n_views: int = 1
    estimator: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head on the views of all images.

        Parameters
        ----------
        X : array-like of shape (n, n_views x d)
            Row i has the embeddings of image i, one view after the other.
        y : array-like of shape (n,)
            Classes of the images.
        sample_weight : array-like of shape (n,), default=None
            Weights of the images; the head must take `sample_weight`.
        groups : array-like of shape (n,), default=None
            Groups of the images, for heads that take them; by default each image is a group.

        Raises
        ------
        ParameterError, InputError
            If a parameter has an invalid value, `n_views` does not divide the number of columns, or
            an image has multiple labels.
        """
        views = split_views(self, X, self.n_views, reset=True)
        targets = read_targets(self, y, len(views))
        if targets.multilabel:
            raise InputError(
                "ViewsClassifier needs one label per image; got multi-label y: use ViewPooling and "
                "then a head."
            )
        head = self._head()
        extra: dict[str, Any] = {}
        if has_fit_parameter(head, "sample_weight"):
            weight = read_weight(self, sample_weight, len(views)) / self.n_views
            extra["sample_weight"] = np.repeat(weight, self.n_views)
        elif sample_weight is not None:
            raise InputError(f"{type(head).__name__} takes no sample_weight; leave it out.")
        if has_fit_parameter(head, "groups"):
            groups = read_groups(type(self).__name__, groups, len(views))
            groups = np.arange(len(views)) if groups is None else groups
            extra["groups"] = np.repeat(groups, self.n_views)
        labels = np.repeat(targets.classes[targets.codes], self.n_views)
        self.estimator_ = head.fit(views.reshape(-1, views.shape[2]), labels, **extra)
        self.classes_ = self.estimator_.classes_
        return self

    @available_if(head_has("predict_proba"))
    def predict_proba(self, X: Any) -> Array:
        """Return the head's probabilities, averaged over the views in X: (n, n_classes)."""
        return self._averaged("predict_proba", X)

    @available_if(head_has("decision_function"))
    def decision_function(self, X: Any) -> Array:
        """Return the mean decision values: (n, n_classes), or (n,) for two classes."""
        return self._averaged("decision_function", X)

    def predict(self, X: Any) -> Array:
        """Return the class with the highest mean probability (or decision value): (n,)."""
        check_is_fitted(self)
        has_probabilities = hasattr(self.estimator_, "predict_proba")
        scores = self._averaged("predict_proba" if has_probabilities else "decision_function", X)
        return self.classes_[chosen_codes(scores.reshape(len(scores), -1))]

    def _averaged(self, method: str, X: Any) -> Array:
        views = split_views(self, X, self.n_views, reset=False)
        scores = getattr(self.estimator_, method)(views.reshape(-1, views.shape[2]))
        return scores.reshape(len(views), self.n_views, *scores.shape[1:]).mean(axis=1)

    def _head(self) -> Any:
        check_estimator_parameter(type(self).__name__, "estimator", self.estimator)
        return LinearProbeClassifier() if self.estimator is None else clone(self.estimator)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        head = get_tags(self._head())
        tags.classifier_tags.multi_class = head.classifier_tags.multi_class
        return tags


def split_views(estimator: Any, X: Any, n_views: int, reset: bool) -> Array:
    """Return rows (n, n_views x d) as (n, n_views, d)."""
    owner = type(estimator).__name__
    check_int(owner, "n_views", n_views, 1)
    X = as_matrix(estimator, X, dtype=_DTYPES, reset=reset)
    if X.shape[1] % n_views:
        raise InputError(
            f"X of {owner} must have a multiple of n_views={n_views} columns; got {X.shape[1]}: "
            "set n_views to the number of views of ImageEmbedder."
        )
    return X.reshape(len(X), n_views, -1)
