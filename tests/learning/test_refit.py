"""A second fit starts without the fitted attributes of the first, in all estimators."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

from featuretl import (
    DomainAdaptedClassifier,
    FineTuneClassifier,
    FineTuneRegressor,
    LinearProbeClassifier,
    LinearProbeRegressor,
    MultiTaskHead,
    NearestMeanClassifier,
    NoveltyDetector,
    SemiSupervisedProbeClassifier,
    SVMProbeClassifier,
    TransferClassifier,
    TransferMultiTask,
    TransferRegressor,
)
from featuretl._learning.refit import forget
from featuretl.heads import AttentionPoolingClassifier, ViewsClassifier

FEW = {"backbone": "test_resnet", "weights": "random", "cache": None, "random_state": 0}
TUNE = FEW | {"epochs": 1, "n_blocks": 1, "learning_rate": 0.001, "augment": "none"}
OF_CLASSES = [
    (LinearProbeClassifier(), {"C": "cv", "cv": 2}, {"C": 1.0}),
    (LinearProbeClassifier(), {"calibrate": True, "cv": 2}, {"calibrate": False}),
    (SVMProbeClassifier(calibrate=False), {"kernel": "linear"}, {"kernel": "rbf"}),
    (SVMProbeClassifier(calibrate=False), {"kernel": "rbf"}, {"kernel": "linear"}),
    (SVMProbeClassifier(cv=2), {"C": "cv"}, {"C": 1.0, "calibrate": False}),
    (NearestMeanClassifier(), {"center": "mean"}, {"center": np.zeros(64)}),
    (SemiSupervisedProbeClassifier(cv=2), {"C": 1.0}, {"C": 0.1}),
    (SemiSupervisedProbeClassifier(cv=2), {"method": "auto"}, {"method": "self-training"}),
    (ViewsClassifier(), {"n_views": 2}, {"n_views": 1, "estimator": NearestMeanClassifier()}),
    (AttentionPoolingClassifier(), {"n_views": 2}, {"n_views": 1}),
    (MultiTaskHead(), {}, {"heads": {"0": NearestMeanClassifier()}}),
    (LinearProbeRegressor(), {"alpha": "loo"}, {"alpha": 1.0}),
    (NoveltyDetector(), {"level": 0.5}, {"level": 0.01}),
    (DomainAdaptedClassifier(), {}, {"estimator": NearestMeanClassifier()}),
]
OF_IMAGES = [
    (TransferClassifier(strategy="linear", **FEW), {"novelty": True}, {"novelty": False}),
    (TransferRegressor(strategy="linear", **FEW), {"novelty": True}, {"novelty": False}),
    (TransferMultiTask(**FEW), {"novelty": True}, {"novelty": False}),
    (FineTuneClassifier(**TUNE), {"head": "probe"}, {"head": "linear"}),
    (FineTuneRegressor(**TUNE), {"head": "linear"}, {"head": "probe"}),
]


def shape_of(value):
    return value.shape if isinstance(value, np.ndarray) else type(value)


def attributes(estimator):
    # scikit-learn's callbacks are not part of the fitted state.
    return {k: shape_of(v) for k, v in vars(estimator).items() if "callback" not in k}


def assert_nothing_stays(estimator, before, after, fit):
    again = fit(clone(estimator).set_params(**before), True)
    again = fit(again.set_params(**after), False)
    fresh = fit(clone(estimator).set_params(**after), False)
    assert attributes(again) == attributes(fresh)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator, before, after", OF_CLASSES, ids=lambda v: v if isinstance(v, str) else None
)
def test_a_head_keeps_nothing_of_an_earlier_fit(estimator, before, after):
    digits, targets = load_digits(return_X_y=True)

    def fit(head, first):
        X, y = digits[:120], targets[:120]
        if not first:
            X, y = X[y < 6, :64], y[y < 6]
        if isinstance(head, MultiTaskHead):
            return head.fit(X, y[:, None])
        if isinstance(head, DomainAdaptedClassifier):
            return head.fit(X, y, X + 1)
        return head.fit(X, y)

    assert_nothing_stays(estimator, before, after, fit)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator, before, after", OF_IMAGES)
def test_an_estimator_of_images_keeps_nothing_of_an_earlier_fit(estimator, before, after, pixels):
    images = [pixels[i : i + 64, i : i + 64] for i in range(12)]

    def fit(model, first):
        y = np.arange(12) % 3 if first else np.arange(12) % 2
        y = y[:, None] if isinstance(model, TransferMultiTask) else y
        return model.fit(images, y if "Regressor" not in type(model).__name__ else y + 0.5)

    assert_nothing_stays(estimator, before, after, fit)


class Estimator:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_fitted_attributes_are_forgotten_except_for_those_kept():
    estimator = Estimator(C=1, n_features_in_=3, path_=0, classes_=1, _cache=2, _other=3, _x_=4)
    forget(estimator, "_cache", "_never_set", keep=["classes_"])
    assert vars(estimator) == {"C": 1, "classes_": 1, "_other": 3, "_x_": 4}
    forget(estimator)  # has no effect before the next fit
    assert "classes_" in vars(estimator)


def test_an_estimator_that_was_never_fitted_stays_as_it_is():
    estimator = Estimator(C=1, set_by_a_subclass_=2)
    forget(estimator)
    assert vars(estimator) == {"C": 1, "set_by_a_subclass_": 2}
