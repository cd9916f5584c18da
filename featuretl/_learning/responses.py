"""Methods that all classifiers share: decision values, probabilities, classes and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special
from sklearn.utils import Bunch

from featuretl._core.types import Array
from featuretl._learning.arrays import library_of, near, to_numpy
from featuretl._learning.calibration import best_temperature, expected_calibration_error
from featuretl._learning.targets import ScoreMixin


class Responses(ScoreMixin):
    """Prediction methods of a classifier with ``_logits(X)``, which are (n, 1) for two classes."""

    classes_: Array
    calibration_: Bunch
    _logits: Callable[[Any], Array]
    _multilabel = False

    def decision_function(self, X: Any) -> Array:
        """Return the decision values (n, n_classes), (n,) for two classes, or (n, n_labels).

        They are logits, not divided by the temperature: float32, or float64 for float64 X. X is as
        for `fit`; matrices are processed in blocks. Under scikit-learn's array API dispatch, heads
        on embeddings return a tensor on the device of a tensor X.
        """
        logits = self._logits(X)
        return logits[:, 0] if self._is_binary(logits) else logits

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities of the n_classes or n_labels, float64 (n, n_classes) in [0, 1].

        They are the softmax (for labels, the logistic function) of the decision values of X divided
        by the temperature.
        """
        temperature = self.calibration_.temperature if hasattr(self, "calibration_") else 1.0
        return self._probabilities(self._logits(X) / temperature)

    def predict(self, X: Any) -> Array:
        """Return the most probable classes (n,) of X, or 0/1 for every label, int (n, n_labels)."""
        logits = self._logits(X)
        if self._multilabel:
            return _as_int(logits > 0)
        codes = chosen_codes(logits)
        if self.classes_.dtype.kind in "biuf":
            return near(logits, self.classes_)[codes]
        return self.classes_[to_numpy(codes)]

    def _calibration(
        self, logits: Array, codes: Array, weight: Array, judged: bool, expected: float = 1.0
    ) -> Bunch:
        """Return `calibration_` of held-out logits; fit the temperature only if `judged`."""
        target = codes[:, None] if self._is_binary(logits) else codes
        best = best_temperature(logits, target, weight, expected) if judged else expected
        before, after = (
            expected_calibration_error(codes, self._probabilities(values), weight)
            for values in (logits, logits / best)
        )
        return Bunch(temperature=best, error_before=before, error_after=after)

    def _is_binary(self, logits: Array) -> bool:
        return not self._multilabel and logits.shape[1] == 1

    def _probabilities(self, logits: Array) -> Array:
        xp = library_of(logits)
        logits, functions = (
            xp.asarray(logits, dtype=xp.float64),
            special if xp is np else xp.special,
        )
        if logits.shape[1] > 1 and not self._multilabel:
            return functions.softmax(logits, 1)
        proba = functions.expit(logits)
        return xp.hstack([1 - proba, proba]) if self._is_binary(logits) else proba


def chosen_codes(logits: Array) -> Array:
    """Return the codes (n,) of the classes with the largest logits, (n, n_classes) or (n, 1)."""
    return _as_int(logits[:, 0] > 0) if logits.shape[1] == 1 else logits.argmax(axis=1)


def _as_int(mask: Array) -> Array:
    xp = library_of(mask)
    return xp.asarray(mask, dtype=xp.int64)
