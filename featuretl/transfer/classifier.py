"""TransferClassifier: choose a strategy for classification, and report the evidence."""

from __future__ import annotations

from featuretl._learning.targets import ScoreMixin
from featuretl.transfer.base import BaseTransfer
from featuretl.transfer.targets import classification_targets


class TransferClassifier(ScoreMixin, BaseTransfer):
    """Choose a strategy for the given images, with the linear probe as the fallback.

    Candidates are evaluated on the same inner folds and compared image by image; one replaces
    another only if it is better by more than one standard error. The winner is fitted to all
    images. `decision_` reports the comparison and a score on images that had no part in choosing.

    Parameters
    ----------
    strategy : {"auto", "nearest-mean", "linear", "svm", "fine-tune"}, default="auto"
        "auto" starts with "linear", the cross-validated probe (`LinearProbeClassifier`). With 5 to
        50 images per class it also tries "nearest-mean"; with at least 20 per class "svm" (RBF
        kernel; up to 4,000 images) and "fine-tune" (`FineTuneClassifier` with three blocks and 12
        epochs, 6 from 1,000 images on). With fewer than 5 images per class it chooses the probe.
        Any other value is the strategy to fit and score. Only "linear" supports multi-label `y`;
        its score is then the mean F1 of the images, "f1_samples".
    backbone : str, Backbone, list of these or "auto", default="tf_efficientnet_lite0"
        As in `ImageEmbedder`; of several, the one with the best linear probe is chosen. "auto"
        compares the installed packaged backbones.
    cv : int >= 2 or splitter, default=5
        Inner folds: heads are evaluated on all of them, fine-tuning on the first. For a number the
        folds are stratified and never divide a group.
    test_size : "auto", float in (0, 0.5] or None, default="auto"
        The fraction of the images that is held out for the outer score. "auto" is a fifth; if
        fine-tuning is not tried and there are at most 300 images, it is ten-fold cross-validation
        of the whole choice. A number is rounded to 1/2, 1/3, ... None skips the outer score.
    time_budget : float > 0 or None, default=None
        Time limit of `fit` in seconds. Candidates that would exceed it are skipped, and fine-tuning
        is shortened. The limit does not apply to embedding the images and to the linear probe.
    weights, device, n_jobs, cache
        As in `ImageEmbedder`; `weights` other than "auto" require a single backbone.
    novelty : bool, default=True
        Also fit a `NoveltyDetector` on the pretrained embeddings. It keeps the embeddings of at
        most 2,000 training images, which add about 5 MB to a model file.
    random_state : int, RandomState or None, default=None
        Seed of the splits and of all training. Results are reproducible with an int and without a
        `time_budget`.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    decision_ : Decision
        `explain()` returns it in sentences, `candidates` as a table; `outer` is the score.
    strategy_, backbone_ : str
        The strategy and the backbone of the winner.
    estimator_ : Pipeline or FineTuneClassifier
        The winner, fitted to all images; it predicts classes from images.
    novelty_ : Pipeline
        Predicts -1 for images unlike the training images, else 1; `novelty_[-1]` is the
        `NoveltyDetector`. Exists if `novelty` and there are images of two groups.
    n_features_in_ : int
        Always 1: the images are one column.

    See Also
    --------
    rank_backbones : A table of many backbones.
    FineTuneClassifier : Fine-tuning with all its parameters.

    Notes
    -----
    Standard errors count the images of a group as one draw. The outer score is measured with a
    model that is trained without the held-out images, and so is, if anything, pessimistic.

    The gain is measured in accuracy or, between the linear probe and fine-tuning, in log-loss,
    which reveals smaller gains; in that case the accuracy must not be lower and some predictions
    must differ. The rule of one standard error is that of Breiman et al., Classification and
    Regression Trees, 1984, section 3.4.3.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl import TransferClassifier
    >>> china, flower = load_sample_images().images
    >>> images = [p[i : i + 200, i : i + 200] for i in range(0, 200, 40) for p in (china, flower)]
    >>> model = TransferClassifier(random_state=0, cache=None)
    >>> model.fit(images, ["temple", "flower"] * 5).predict([china, flower]).tolist()
    ['temple', 'flower']
    >>> model.strategy_
    'linear'
    """

    _targets = staticmethod(classification_targets)
    _strategies = ("auto", "nearest-mean", "linear", "svm", "fine-tune")
