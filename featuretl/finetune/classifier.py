"""FineTuneClassifier: the top blocks of a backbone and a head, trained on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
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
from featuretl.finetune.training import Training
from featuretl.heads.linear import LinearProbeClassifier

_UNSEEN = 3.0
# The best probe fits its training images so well that it leaves nothing for the blocks to learn.
_SOFTER = 0.02


class FineTuneClassifier(Responses, BaseFineTune):
    """Train the last blocks of a pretrained backbone and a head on images, starting from the probe.

    By default this is LP-FT (Kumar et al. 2022): a linear probe is fitted to the pretrained
    embeddings, becomes the head, and then head and last blocks are trained together with a small
    rate that a short search chooses; batch-norm statistics stay frozen. The network below runs
    once per view of an image, and its activations are kept in the store.

    Parameters
    ----------
    backbone : str, default="tf_efficientnet_lite0"
        Any timm model name; see `load_backbone`.
    weights : {"auto", "random"} or path, default="auto"
        Packaged or from timm's hub; or a local file.
    n_blocks : int >= 1, "auto" or "all", default=3
        How many of the last blocks learn, with what lies between them and the head
        (`Backbone.blocks` lists them). "auto" tries one and three; "all" trains the stem, too.
    head : "probe", "linear" or ("mlp", width), default="probe"
        "probe" starts from `LinearProbeClassifier` on the pretrained embeddings (LP-FT), with a
        50th of the C that cross-validation chooses, which leaves a loss to learn from; the others
        start at random: one layer, or a hidden layer of `width` and a ReLU.
    learning_rate : float > 0 or "auto", default="auto"
        Of the head and the blocks. "auto" tries three rates
        (one where the trunk is not cached) in short runs on an inner split and keeps the probe
        if none beats it there; `history_` and `decision_` show what was tried.
    epochs : int, default=12
    batch_size : int, default=32
    class_weight : dict, "balanced" or None, default=None
        Factors on the weights of the classes; None or "balanced" for multi-label `y`.
    augment : {"auto", "none", "light", "strong"} or callable, default="auto"
        "light" mirrors images and, where the trunk is not cached, crops 70% or more of them;
        "strong" crops to 35%, changes colours, and multiplies cached activations by noise. With a
        cached trunk, two ("light") or six ("strong") fixed views of each image are kept. A
        callable maps a PIL image to a PIL image, and every image is computed afresh in each epoch.
        "auto" is "light". Use "none" where left and right matter.
    early_stopping : int or None, default=None
        Hold out a fifth of the images, stop after this many epochs without a lower
        loss there, and keep the best epoch's weights.
    cache_trunk : bool or "auto", default="auto"
        Run the frozen trunk once per view and keep its activations (float16) with the embeddings.
        "auto" does where they take at most half of the free disk and 20 GiB, and there are more
        epochs than views; `cache_trunk_` says what was chosen and why.
    time_budget : float or None, default=None
        Seconds for the search (half of them at most) and the training, after which it ends; the
        schedule is shortened to fit.
    checkpoint : path or None, default=None
        A folder for the state after each epoch; a killed `fit` with the same parameters and data
        goes on from there, to the same result.
    training : featuretl.finetune.Training, default=None
        Settings that most fits leave as they are: optimizer, schedule, decay, batch norm, ..
    device : str, default="auto"
        A torch device; "auto" is CUDA where available, else the CPU.
    n_jobs : int, optional
        Threads that read, decode and preprocess; None or -1 is one per usable core.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where activations are kept; see `ImageEmbedder`. None keeps them in memory, up to 1 GiB.
    random_state : int, RandomState or None, default=None
        Seeds the head, the inner split, the order of images and the augmentation.
    verbose : int, default=0
        1 shows progress and what was decided.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, or the labels in the order of the columns.
    fine_tuned_ : bool
        False if ``learning_rate="auto"`` kept the probe.
    decision_ : str
        What the search found, in one sentence; empty without one.
    learning_rate_ : float
        The rate that was used.
    n_blocks_ : int
        Blocks that were trained; 0 if the probe was kept.
    cache_trunk_ : Plan
        `cached`, `views`, `bytes` and `why`.
    stopped_ : str
        "early_stopping", "time_budget" or "interrupted", if training ended before its last epoch.
    history_ : pandas.DataFrame
        What happened in each epoch.
    n_features_in_ : int
        1: images are one column.

    See Also
    --------
    LinearProbeClassifier : What to compare with: a head alone, on `ImageEmbedder` output.

    Notes
    -----
    Below about 20 images per class there is rarely anything to gain.

    Gradients longer than 5 are shortened to that.

    Ctrl-C ends training, and the best weights so far are kept: those of the best epoch with
    `early_stopping`, else the latest.

    References
    ----------
    Kumar, Raghunathan, Jones, Ma and Liang, Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution, 2022 (LP-FT).

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

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        *,
        weights: Any = "auto",
        n_blocks: int | str = 3,
        head: Any = "probe",
        learning_rate: float | str = "auto",
        epochs: int = 12,
        batch_size: int = 32,
        class_weight: Any = None,
        augment: Any = "auto",
        early_stopping: int | None = None,
        cache_trunk: bool | str = "auto",
        time_budget: float | None = None,
        checkpoint: Any = None,
        training: Training | None = None,
        device: str = "auto",
        n_jobs: int | None = None,
        cache: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            backbone,
            weights=weights,
            n_blocks=n_blocks,
            head=head,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            augment=augment,
            early_stopping=early_stopping,
            cache_trunk=cache_trunk,
            time_budget=time_budget,
            checkpoint=checkpoint,
            training=training,
            device=device,
            n_jobs=n_jobs,
            cache=cache,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> FineTuneClassifier:
        """Train on for `epochs`, on these images; the first call is `fit`.

        Parameters
        ----------
        X : sequence of n images
        y : array-like of shape (n,), or indicator of shape (n, n_labels)
        classes : array-like, default=None
            All classes that will ever come; only looked at in the first call.
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        FineTuneClassifier

        Raises
        ------
        InputError
            If `y` holds a class that the first call did not announce.
        """
        if not hasattr(self, "_tuned"):
            self.__dict__.pop("classes_", None)  # of a fit that did not end
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
        if known is None:
            targets = read_targets(self, y, n)
        else:
            targets = read_announced(self, y, n, known)
        weight = read_weight(self, sample_weight, n)
        in_loss = loss_weight(self, self.class_weight, targets, weight)
        self._multilabel, self.classes_ = targets.multilabel, targets.classes

        def probe(embeddings: Array, rows: Array, groups: Any, C: Any) -> Any:
            # Divided by its own scale, a feature that hardly varies gets a huge coefficient, and
            # training explodes as soon as that feature moves.
            head = LinearProbeClassifier(
                "cv" if C is None else C,
                scaling="common",
                class_weight=self.class_weight,
                random_state=0,
            )
            labels = targets.codes[rows]
            head.fit(embeddings[rows], labels, weight[rows], groups)
            return (*_as_outputs(head, targets), head.C_)

        return Problem(
            "binary" if targets.multilabel else "softmax",
            targets.codes,
            in_loss,
            len(targets.classes),
            None if targets.multilabel else targets.codes,
            probe,
            lambda C: C * _SOFTER,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _as_outputs(head: LinearProbeClassifier, targets: Targets) -> tuple[Array, Array]:
    """Return coefficients and intercepts of all outputs; of classes without an image, unlikely."""
    coef, intercept = head.coef_, head.intercept_
    if targets.multilabel:
        return coef, intercept
    if len(head.classes_) == 2:  # one logit becomes a difference of two
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    all_coef = np.zeros((len(targets.classes), coef.shape[1]), coef.dtype)
    all_intercept = np.full(len(targets.classes), intercept.min() - _UNSEEN, intercept.dtype)
    all_coef[head.classes_], all_intercept[head.classes_] = coef, intercept
    return all_coef, all_intercept
