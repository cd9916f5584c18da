"""FineTuneRegressor: train the last blocks of a backbone and a head on regression targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featuretl._core.types import Array
from featuretl._learning.labels import all_numbers
from featuretl._learning.targets import check_length, read_weight
from featuretl.exceptions import InputError
from featuretl.finetune.base import BaseFineTune
from featuretl.finetune.objective import Problem
from featuretl.heads.ridge import LinearProbeRegressor


class FineTuneRegressor(MultiOutputMixin, RegressorMixin, BaseFineTune):
    """Fine-tune the last blocks of a pretrained backbone and a head, starting from a ridge probe.

    It works as `FineTuneClassifier`; the loss is the squared error of standardised targets.

    Parameters
    ----------
    backbone, weights, n_blocks, head, learning_rate, epochs, batch_size, augment, early_stopping, \
            cache_trunk, time_budget, checkpoint, training, device, n_jobs, cache, random_state, \
            verbose : optional
        As in `FineTuneClassifier`; ``head="probe"`` starts from `LinearProbeRegressor`, with alpha
        chosen on the pretrained embeddings.

    Attributes
    ----------
    fine_tuned_, decision_, learning_rate_, n_blocks_, cache_trunk_, stopped_, history_, \
            n_features_in_
        As in `FineTuneClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl.finetune.regressor import FineTuneRegressor
    >>> flower = load_sample_images().images[1]
    >>> images = [(flower * light).astype("uint8") for light in (0.2, 0.4, 0.6, 0.8, 1.0)] * 2
    >>> model = FineTuneRegressor(n_blocks=1, learning_rate=0.003, epochs=3, random_state=0)
    >>> model.fit(images, [0.2, 0.4, 0.6, 0.8, 1.0] * 2).predict(images[:3]).shape
    (3,)
    """

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> FineTuneRegressor:
        """Continue training on these images for `epochs` more epochs; the first call is `fit`."""
        if not hasattr(self, "_tuned"):
            return self.fit(X, y, sample_weight)
        self._fit_more(X, y, sample_weight, self._scaling)
        return self

    def predict(self, X: Any) -> Array:
        """Return predictions for n images, float32, of shape (n,) or (n, n_outputs) as in `fit`."""
        check_is_fitted(self)
        centre, scale = self._scaling
        predicted = (self._outputs(X, "whole") * scale + centre).astype(np.float32)
        return predicted[:, 0] if self._flat else predicted

    def _problem(
        self, images: Sequence[Any], y: Any, sample_weight: Any, known: tuple[Array, Array] | None
    ) -> Problem:
        n = len(images)
        Y = all_numbers(type(self).__name__, y)
        check_length(n, "y", len(Y))
        self._flat = Y.ndim == 1
        Y = Y.reshape(n, -1)
        weight = read_weight(self, sample_weight, n)
        if known is None:
            scaler = StandardScaler().fit(Y, sample_weight=weight)
            known = scaler.mean_, scaler.scale_
        centre, scale = known
        if Y.shape[1] != len(centre):
            raise InputError(
                f"y must have {len(centre)} columns, as in the first call of fit or partial_fit; "
                f"got {Y.shape[1]}."
            )
        self._scaling = known
        standardised = (Y - centre) / scale

        def probe(embeddings: Array, rows: Array, groups: Any, alpha: Any) -> Any:
            head = LinearProbeRegressor("loo" if alpha is None else alpha)
            head.fit(embeddings[rows], standardised[rows], weight[rows], groups)
            return head.coef_, head.intercept_, head.alpha_

        return Problem("squared", standardised, weight, Y.shape[1], None, probe)
