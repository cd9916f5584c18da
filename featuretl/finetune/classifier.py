"""FineTuneClassifier: train the last blocks of a backbone and a head on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import Tags

from featuretl._core.types import Array
from featuretl._learning.responses import Responses
from featuretl._learning.targets import (
    Targets,
    loss_weight,
    read_announced,
    read_classes,
    read_targets,
    read_weight,
)
from featuretl.finetune.base import BaseFineTune
from featuretl.finetune.objective import Problem
from featuretl.heads.linear import LinearProbeClassifier

# How much lower than the lowest intercept the logit of a class without images is.
_UNSEEN = 3.0
# The best probe fits its training images so well that there is no loss left to train the blocks.
_SOFTER = 0.02


@dataclass(eq=False, repr=False, kw_only=True)
class FineTuneClassifier(Responses, BaseFineTune):
    """Fine-tune the last blocks of a pretrained backbone and a head, starting from a linear probe.

    By default this is LP-FT (Kumar et al. 2022, arXiv:2202.10054): a linear probe on the pretrained
    embeddings becomes the head, and then the head and the last blocks are trained together with a
    small learning rate that a short search chooses. Batch-norm statistics stay frozen. The frozen
    part of the network runs once per view of an image, and the store caches its activations.

    Parameters
    ----------
    backbone, weights
        As in `ImageEmbedder`.
    n_blocks : int >= 1, "auto" or "all", default=3
        The number of last blocks (see `Backbone.blocks`) to train; all layers above them are
        trained too. "auto" tries one and three; "all" trains the whole network.
    head : "probe", "linear" or ("mlp", width), default="probe"
        "probe" starts from `LinearProbeClassifier` on the pretrained embeddings, with a 50th of
        the cross-validated C, which leaves a loss for the blocks to reduce. The others are
        initialised at random: one layer, or two with a hidden layer of `width` ReLU units.
    learning_rate : float > 0 or "auto", default="auto"
        The learning rate of the head and the blocks. "auto" tries three rates (one if the trunk is
        not cached) in short runs on an inner split, and keeps the probe if none beats it;
        `history_` and `decision_` report the search.
    epochs : int, default=12
    batch_size : int, default=32
    class_weight : dict, "balanced" or None, default=None
        Factors on the weights of the classes; None or "balanced" for multi-label `y`.
    augment : {"auto", "none", "light", "strong"} or callable, default="auto"
        "light", the choice of "auto", mirrors images and, if the trunk is not cached, crops them
        to 70% or more; "strong" crops to 35% or more, changes colours, and multiplies cached
        activations by noise. With a cached trunk, each image has two ("light") or six ("strong")
        fixed views. A callable maps a PIL image to a PIL image and is called in every epoch. Use
        "none" if left and right matter.
    early_stopping : int or None, default=None
        Hold out a fifth of the images, stop after this number of epochs without a lower loss on
        them, and use the weights of the best epoch.
    cache_trunk : bool or "auto", default="auto"
        Run the frozen trunk once per view and cache its activations (float16) with the embeddings.
        "auto" does so if they take at most half of the free disk space and 20 GiB, and there are
        more epochs than views; `cache_trunk_` reports the decision.
    time_budget : float or None, default=None
        Time limit in seconds for the search (at most half of it) and the training; the learning
        rate schedule is shortened to fit.
    checkpoint : path or None, default=None
        A folder for the state after each epoch; a killed `fit` with the same parameters and data
        resumes from it, with the same result.
    training : featuretl.finetune.Training, default=None
        Settings that most users leave at their defaults, such as the optimizer and the schedule.
    device, n_jobs, cache
        As in `ImageEmbedder`. The cache holds activations; None keeps up to 1 GiB in memory.
    random_state : int, RandomState or None, default=None
        Seed of the head, the inner split, the order of images and the augmentation.
    verbose : int, default=0
        1 shows progress and decisions.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, or the labels in the order of the columns.
    fine_tuned_ : bool
        False if ``learning_rate="auto"`` kept the probe.
    decision_ : str
        The result of the search in one sentence; empty without a search.
    learning_rate_, n_blocks_ : float and int
        Those of the training; 0 blocks if the probe was kept.
    cache_trunk_ : Plan
        Whether activations were cached: `cached`, `views`, `bytes` and `why`.
    stopped_ : str
        "early_stopping", "time_budget" or "interrupted" if training ended before the last epoch,
        else empty.
    history_ : pandas.DataFrame
        The losses and scores of each epoch.
    n_features_in_ : int
        Always 1: the images are one column.

    See Also
    --------
    LinearProbeClassifier : The baseline: a head alone, on `ImageEmbedder` output.

    Notes
    -----
    With fewer than about 20 images per class fine-tuning rarely improves on the probe. Gradients
    are clipped to a norm of 5. Ctrl-C ends training and keeps the best weights so far: those of
    the best epoch with `early_stopping`, else the latest.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from featuretl.finetune.classifier import FineTuneClassifier
    >>> china, flower = load_sample_images().images
    >>> images = [p[i : i + 200, i : i + 200] for i in range(0, 200, 40) for p in (china, flower)]
    >>> model = FineTuneClassifier(n_blocks=1, learning_rate=0.003, epochs=3, random_state=0)
    >>> model.fit(images, ["temple", "flower"] * 5).predict([china, flower]).tolist()
    ['temple', 'flower']
    """

    class_weight: Any = None

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> FineTuneClassifier:
        """Continue training on these images for `epochs` more epochs; the first call is `fit`.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like, default=None
            All classes of this and later calls; only used in the first call.

        Raises
        ------
        InputError
            If `y` contains a class that the first call did not announce.
        """
        if not hasattr(self, "_tuned"):
            self.__dict__.pop("classes_", None)  # left by a fit that failed
            announced = None if classes is None else read_classes(type(self).__name__, classes)
            return self._fit(X, y, sample_weight, None, announced)
        self._fit_more(X, y, sample_weight, self.classes_)
        return self

    def _logits(self, X: Any) -> Array:
        logits = self._outputs(X, "whole")
        is_pair = not self._multilabel and len(self.classes_) == 2
        return logits[:, 1:] - logits[:, :1] if is_pair else logits

    def _problem(
        self, images: Sequence[Any], y: Any, sample_weight: Any, known: Array | None
    ) -> Problem:
        n = len(images)
        targets = read_targets(self, y, n) if known is None else read_announced(self, y, n, known)
        weight = read_weight(self, sample_weight, n)
        in_loss = loss_weight(self, self.class_weight, targets, weight)
        self._multilabel, self.classes_ = targets.multilabel, targets.classes

        def probe(embeddings: Array, rows: Array, groups: Any, C: Any) -> Any:
            # If each feature had its own scale, one that hardly varies would get a huge
            # coefficient, and training would diverge as soon as that feature changes.
            options = {"class_weight": self.class_weight, "random_state": 0}
            head = LinearProbeClassifier("cv" if C is None else C, scaling="common", **options)
            head.fit(embeddings[rows], targets.codes[rows], weight[rows], groups)
            return (*_as_outputs(head, targets), head.C_)

        kind, strata = ("binary", None) if targets.multilabel else ("softmax", targets.codes)
        n_outputs = len(targets.classes)
        return Problem(kind, targets.codes, in_loss, n_outputs, strata, probe, _SOFTER)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _as_outputs(head: LinearProbeClassifier, targets: Targets) -> tuple[Array, Array]:
    """Return coefficients and intercepts of all outputs; classes without images are unlikely."""
    coef, intercept = head.coef_, head.intercept_
    if targets.multilabel:
        return coef, intercept
    if len(head.classes_) == 2:  # one logit becomes the difference of two
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    all_coef = np.zeros((len(targets.classes), coef.shape[1]), coef.dtype)
    all_intercept = np.full(len(targets.classes), intercept.min() - _UNSEEN, intercept.dtype)
    all_coef[head.classes_], all_intercept[head.classes_] = coef, intercept
    return all_coef, all_intercept
