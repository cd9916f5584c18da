"""TransferRegressor: choose a strategy for regression, and report the evidence."""

from __future__ import annotations

from sklearn.base import MultiOutputMixin, RegressorMixin

from featuretl.transfer.base import BaseTransfer
from featuretl.transfer.targets import RegressionTargets


class TransferRegressor(MultiOutputMixin, RegressorMixin, BaseTransfer):
    """Choose a strategy for the given images, with the ridge probe as the fallback.

    The rules are those of `TransferClassifier`; the score is R2, relative to the variance of all
    targets.

    Parameters
    ----------
    strategy : {"auto", "linear", "svm", "fine-tune"}, default="auto"
        "auto" starts with "linear" (`LinearProbeRegressor`); with at least 200 images it also tries
        "svm" (scikit-learn's `SVR`, up to 4,000 images) and "fine-tune" (`FineTuneRegressor`).
    backbone, weights, cv, test_size, time_budget, device, n_jobs, cache, novelty, random_state, verbose
        As in `TransferClassifier`.

    Attributes
    ----------
    decision_, strategy_, backbone_, novelty_, n_features_in_
        As in `TransferClassifier`.
    estimator_ : Pipeline or FineTuneRegressor
        The winner, fitted to all images.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl import TransferRegressor
    >>> china = load_sample_images().images[0]
    >>> images = [china // k for k in range(1, 11)]
    >>> model = TransferRegressor(random_state=0, cache=None).fit(images, range(10))
    >>> model.strategy_, model.decision_.outer.images
    ('linear', 10)
    """

    _targets = RegressionTargets
    _strategies = ("auto", "linear", "svm", "fine-tune")
