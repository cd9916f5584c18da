"""TransferRegressor: choose between a ridge probe and more, and say on what evidence."""

from __future__ import annotations

from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from featuretl.transfer.base import BaseTransfer
from featuretl.transfer.tasks import Numbers


class TransferRegressor(RegressorMixin, BaseTransfer):
    """Choose a strategy by the images at hand, with the ridge probe to fall back on.

    As `TransferClassifier`, for numbers: scores are shares of the variance of `y` that are
    explained (R2, with the variance of all targets).

    Parameters
    ----------
    strategy : {"auto", "linear", "svm", "fine-tune"}, default="auto"
        "auto" starts with "linear" (`LinearProbeRegressor`) and from 200 images on tries "svm"
        (scikit-learn's `SVR`, up to 4,000 images) and "fine-tune" (`FineTuneRegressor`).
    backbone : str, list of str or "auto", default="tf_efficientnet_lite0"
        As in `TransferClassifier`.
    weights : {"auto", "random"} or path, default="auto"
        See `load_backbone`; a path for a single backbone only.
    cv : int >= 2 or splitter, default=5
        Inner folds.
    test_size : "auto", float in (0, 0.5] or None, default="auto"
        As in `TransferClassifier`.
    time_budget : float > 0 or None, default=None
        Seconds for `fit`.
    device : str, default="auto"
        A torch device.
    n_jobs : int, optional
        Threads that read, decode and embed; None or -1 is one per usable core.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        See `ImageEmbedder`.
    novelty : bool, default=True
        As in `TransferClassifier`.
    random_state : int, RandomState or None, default=None
        Seeds the splits and all training.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    decision_ : Decision
        See `TransferClassifier`.
    strategy_, backbone_ : str
        What was chosen.
    estimator_ : Pipeline or FineTuneRegressor
        The winner, fitted to all images.
    novelty_ : Pipeline
        See `TransferClassifier`.
    n_features_in_ : int
        1: images are one column.

    See Also
    --------
    TransferClassifier : The same for classes, with the rules in full.

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

    _task = staticmethod(Numbers)
    _strategies = ("auto", "linear", "svm", "fine-tune")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
