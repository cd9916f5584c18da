"""TransferClassifier: choose between a linear probe and costlier models, and report the evidence."""

from __future__ import annotations

from featuretl._learning.targets import ScoreMixin
from featuretl.transfer.base import BaseTransfer
from featuretl.transfer.targets import classification_targets


class TransferClassifier(ScoreMixin, BaseTransfer):
    """Choose a strategy by the images at hand, with the linear probe to fall back on.

    Candidates are tried on the same inner folds and compared image by image. One replaces another
    only if it is better by more than one standard error. The winner is fitted to all images;
    `decision_` reports what was tried and why, with a score of images that had no part in choosing.

    Parameters
    ----------
    strategy : {"auto", "nearest-mean", "linear", "svm", "fine-tune"}, default="auto"
        "auto" starts with "linear", the cross-validated probe (`LinearProbeClassifier`), and tries
        "nearest-mean" with 5 to 50 images per class, and from 20 per class on "svm" (RBF; up to
        4,000 images) and "fine-tune" (`FineTuneClassifier`, three blocks, 12 epochs; 6 from 1,000
        images on). With fewer than 5 images
        per class nothing is compared, and the probe is chosen.
        Any other is the strategy itself; the table shows how it does. Only "linear" takes several
        labels per image; its score is then the mean F1 of an image's labels, "f1_samples".
    backbone : str, list of str or "auto", default="tf_efficientnet_lite0"
        Any timm model name; of several the one with the best linear probe. "auto" compares the
        packaged ones that are installed.
    weights : {"auto", "random"} or path, default="auto"
        See `load_backbone`; a path for a single backbone only.
    cv : int >= 2 or splitter, default=5
        Inner folds: heads are judged by all of them, fine-tuning by the first. A number spreads
        classes evenly and never splits a group.
    test_size : "auto", float in (0, 0.5] or None, default="auto"
        The fraction of the images that is held out for the outer score. "auto" is a fifth or, where
        fine-tuning is not tried and there are at most 300 images, cross-validation in ten folds,
        each with a choice of its own. A number is rounded to one of 2, 3, .. equal parts. None
        saves the time and gives no score.
    time_budget : float > 0 or None, default=None
        Seconds for `fit`. Candidates that would exceed it are skipped, and fine-tuning is
        shortened. Embedding the images and the linear probe are not limited.
    device : str, default="auto"
        A torch device; "auto" is CUDA where available, else the CPU.
    n_jobs : int, optional
        Threads that read, decode and embed; None or -1 is one per usable core.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where embeddings and activations are cached; see `ImageEmbedder`.
    novelty : bool, default=True
        Fit a `NoveltyDetector` too, on embeddings of the backbone as it was before any
        fine-tuning. It keeps those of at most 2,000 training images, about 5 MB of a model file.
    random_state : int, RandomState or None, default=None
        Seeds the splits and all training. With a number and no `time_budget` the result is the
        same every time.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    decision_ : Decision
        `explain()` is the decision in sentences; `candidates` the table; `outer` the score of
        images that had no part in it; `strategy` and `backbone` the winner.
    strategy_, backbone_ : str
        The strategy and the backbone of the winner.
    estimator_ : Pipeline or FineTuneClassifier
        The winner, fitted to all images: images in, classes out.
    novelty_ : Pipeline
        With `novelty`, and two images of different groups: images in, -1 for those unlike the
        training images and 1 for the others; `novelty_[-1]` is the `NoveltyDetector`.
    n_features_in_ : int
        1: images are one column.

    See Also
    --------
    rank_backbones : A table of many backbones.
    FineTuneClassifier : Fine-tuning with all its parameters.

    Notes
    -----
    Standard errors count the images of a group as one draw. The outer score is that of a model
    trained on the other images only; the one that is fitted to all of them is, if anything, better.

    The gain that counts is in accuracy or, between linear probe and fine-tuning, in log-loss, which
    few images show more clearly; then accuracy must be no lower and some predictions different.
    The rule of one standard error is that of Breiman et al., Classification and Regression Trees,
    1984, section 3.4.3, for the simpler of two models.

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
