"""The base class of the estimators that choose a strategy: parameters, `fit` and prediction."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.pipeline import make_pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import (
    check_bool,
    check_number,
    check_option,
    check_seconds,
    is_word,
    parameter_error,
)
from featuretl._core.types import Array
from featuretl._learning.folds import check_folds
from featuretl._learning.refit import forget
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import InputError
from featuretl.extraction.embedder import ImageEstimator
from featuretl.novelty.detector import NoveltyDetector
from featuretl.transfer.decision import choose
from featuretl.transfer.experiment import Experiment, backbones_of, embedder_of
from featuretl.transfer.targets import TransferTargets


def _gives_probabilities(model: BaseTransfer) -> bool:
    if hasattr(model, "estimator_"):
        return hasattr(model.estimator_, "predict_proba")
    return not isinstance(model, RegressorMixin)


@dataclass(eq=False, repr=False)
class BaseTransfer(ImageEstimator):
    """Base of the transfer estimators; `TransferClassifier` documents the parameters."""

    _targets: ClassVar[Callable[..., TransferTargets]]
    _strategies: ClassVar[tuple[str, ...]]
    strategy: str = "auto"
    _: KW_ONLY
    backbone: Any = "tf_efficientnet_lite0"
    weights: Any = "auto"
    cv: Any = 5
    test_size: Any = "auto"
    time_budget: Any = None
    device: str = "auto"
    n_jobs: int | None = None
    cache: Any = "auto"
    novelty: bool = True
    random_state: Any = None
    verbose: int = 0

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Choose a strategy, score it on held-out images, and fit it to all images.

        Parameters
        ----------
        X : sequence of n images
            As for `ImageEmbedder`.
        y : array-like of shape (n,)
            Classes or regression targets. For multi-label classification, n lists of labels or an
            indicator of shape (n, n_labels); for several regression targets (n, n_outputs).
        groups : array-like of shape (n,), default=None
            No split divides a group. The default for crops is their file.

        Raises
        ------
        ParameterError, InputError
            If a parameter or `y` is invalid, or lengths differ.
        ImageError, BackboneError
            If an image cannot be read, or a backbone cannot be loaded.
        """
        self._check_parameters()
        forget(self)
        experiment = Experiment(self, X, y, groups, self._targets)
        self.n_features_in_ = 1
        winner, decision = choose(experiment, self.strategy, self.test_size)
        self.strategy_, self.backbone_ = winner.strategy, winner.backbone
        self.estimator_ = experiment.fit(winner, np.arange(experiment.n), last=True)
        embeddings = experiment.embeddings(self.backbone_)
        self._fit_novelty(embeddings, experiment.groups, experiment.seed)
        self.decision_: Any = replace(decision, seconds=experiment.seconds())
        return self

    def predict(self, X: Any) -> Array:
        """Return the predictions for n images, of shape (n,), or (n, k) for several targets."""
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Return class probabilities (n, n_classes) of n images; a dict of them for several tasks."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @property
    def classes_(self) -> Any:
        """The classes, ndarray of shape (n_classes,); a dict of them for several tasks."""
        check_is_fitted(self, "estimator_")
        return self.estimator_.classes_

    def _fit_novelty(self, embeddings: Array, groups: Any, seed: int) -> None:
        """Set `novelty_`, unless there is only one image or group to compare with."""
        if self.novelty:
            with contextlib.suppress(InputError):
                detector = NoveltyDetector(random_state=seed).fit(embeddings, groups=groups)
                self.novelty_ = make_pipeline(embedder_of(self, self.backbone_), detector)

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_bool(owner, "novelty", self.novelty)
        check_option(owner, "strategy", self.strategy, self._strategies)
        listed = self.backbone if isinstance(self.backbone, (list, tuple)) else [self.backbone]
        named = all(isinstance(getattr(one, "spec", one), (str, BackboneSpec)) for one in listed)
        if not listed or not named or len(backbones_of(self)) < len(listed):
            expected = "a name or Backbone, a list of these with distinct names, or 'auto'"
            raise parameter_error(owner, "backbone", expected, self.backbone)
        is_one = not is_word(self.backbone, "auto") and len(listed) == 1
        if not is_word(self.weights, "auto") and not is_one:
            raise parameter_error(owner, "weights", "'auto' with several backbones", self.weights)
        is_splitter = hasattr(self.cv, "split") and not isinstance(self.cv, str)
        if not is_splitter and not isinstance(self.cv, numbers.Integral):
            raise parameter_error(owner, "cv", "an int >= 2 or a splitter", self.cv)
        check_folds(owner, self.cv)
        check_number(owner, "test_size", self.test_size, "(0, 0.5]", "auto", None)
        if self.time_budget is not None:
            check_seconds(owner, "time_budget", self.time_budget)
