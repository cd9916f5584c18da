"""FineTuneRegressor: the top blocks of a backbone and a head, trained on images with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from featuretl._core.types import Array
from featuretl._learning.labels import all_numbers
from featuretl._learning.targets import check_length, read_weight
from featuretl.exceptions import InputError
from featuretl.finetune.base import BaseFineTune
from featuretl.finetune.fitting import Problem
from featuretl.heads.ridge import LinearProbeRegressor


class FineTuneRegressor(RegressorMixin, BaseFineTune):
    """Train the last blocks of a pretrained backbone and a head on images, starting from the probe.

    As `FineTuneClassifier`, with the squared error of standardised targets as the loss.

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
        "probe" starts from `LinearProbeRegressor` with alpha chosen on the pretrained embeddings
        (LP-FT); the others start at random: one layer, or a hidden layer of `width` and a ReLU.
    optimizer : {"sgd", "adamw", "adam", "rmsprop"}, default="sgd"
        "sgd" and "rmsprop" with momentum 0.9, "sgd" Nesterov's.
    learning_rate : float > 0 or "auto", default="auto"
        Of the head and, times ``layer_decay ** distance``, of the blocks. "auto" tries three rates
        (one where the trunk is not cached) in short runs on an inner split and keeps the probe
        if none beats it there; `history_` and `decision_` show what was tried.
    layer_decay : float in (0, 1], default=1.0
        A block's rate is that of the one above it times this.
    schedule : {"cosine", "one-cycle", "inverse-time", "step", "constant"}, default="cosine"
        How the rate changes; "inverse-time" is ``rate / (1 + decay_rate * epoch)``, "step" divides
        by 10 after 60% and 85% of training.
    decay_rate : float >= 0, default=1.0
        lambda of "inverse-time", per epoch.
    warmup : float in [0, 1), default=0.1
        Share of training in which the rate first rises from 0.
    epochs : int, default=12
    head_epochs : int, default=0
        Epochs, of `epochs`, in which the head learns alone before the blocks join.
    unfrozen_rate : float >= 0, default=1.0
        Factor on all rates once the blocks have joined after `head_epochs`.
    batch_size : int, default=32
    weight_decay : float >= 0, default=1e-4
    augment : {"auto", "none", "light", "strong"} or callable, default="auto"
        "light" mirrors images and, where the trunk is not cached, crops 70% or more of them;
        "strong" crops to 35%, changes colours, and multiplies cached activations by noise. With a
        cached trunk, two ("light") or six ("strong") fixed views of each image are kept. A
        callable maps a PIL image to a PIL image, and every image is computed afresh in each epoch.
        "auto" is "light". Use "none" where left and right matter.
    batch_norm : {"frozen", "train"}, default="frozen"
        Keep the statistics of pretraining, or estimate them anew in the learning blocks; the
        latter is warned of.
    early_stopping : int or None, default=None
        Hold out `validation_fraction` of the images, stop after so many epochs without a lower
        loss there, and keep the best epoch's weights.
    validation_fraction : float in (0, 1), default=0.2
        Share of the images, or groups, of the inner split.
    average : {"none", "ema"}, default="none"
        "ema": use the exponential moving average of the weights, over about two epochs.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the learning part in training. "auto" is bfloat16 on a GPU that has it, else float32.
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
    FineTuneClassifier : The same for classes and labels, with notes on recipes.

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

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        *,
        weights: Any = "auto",
        n_blocks: int | str = 3,
        head: Any = "probe",
        optimizer: str = "sgd",
        learning_rate: float | str = "auto",
        layer_decay: float = 1.0,
        schedule: str = "cosine",
        decay_rate: float = 1.0,
        warmup: float = 0.1,
        epochs: int = 12,
        head_epochs: int = 0,
        unfrozen_rate: float = 1.0,
        batch_size: int = 32,
        weight_decay: float = 1e-4,
        augment: Any = "auto",
        batch_norm: str = "frozen",
        early_stopping: int | None = None,
        validation_fraction: float = 0.2,
        average: str = "none",
        precision: str = "auto",
        cache_trunk: bool | str = "auto",
        time_budget: float | None = None,
        checkpoint: Any = None,
        device: str = "auto",
        n_jobs: int | None = None,
        cache: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.n_blocks = n_blocks
        self.head = head
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.schedule = schedule
        self.decay_rate = decay_rate
        self.warmup = warmup
        self.epochs = epochs
        self.head_epochs = head_epochs
        self.unfrozen_rate = unfrozen_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.augment = augment
        self.batch_norm = batch_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.average = average
        self.precision = precision
        self.cache_trunk = cache_trunk
        self.time_budget = time_budget
        self.checkpoint = checkpoint
        self.device = device
        self.n_jobs = n_jobs
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> FineTuneRegressor:
        """Fit the head and the last blocks.

        Parameters
        ----------
        X : sequence of n images
            Paths, bytes, PIL images or uint8 arrays, as for `ImageEmbedder`.
        y : array-like of shape (n,) or (n, n_outputs)
            Finite numbers.
        sample_weight : array-like of shape (n,), default=None
            Weights >= 0 of the images.
        groups : array-like of shape (n,), default=None
            Images of one group stay on one side of the inner split.

        Returns
        -------
        FineTuneRegressor
            The fitted estimator.

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If lengths differ or `y` has NaN; ImageError if an image cannot be read.
        BackboneError
            If the backbone cannot be loaded or has fewer blocks.
        """
        return self._fit(X, y, sample_weight, groups)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> FineTuneRegressor:
        """Train on for `epochs`, on these images; the first call is `fit`.

        Parameters
        ----------
        X : sequence of n images
        y : array-like of shape (n,) or (n, n_outputs)
        sample_weight : array-like of shape (n,), default=None

        Returns
        -------
        FineTuneRegressor
        """
        if not hasattr(self, "_tuned"):
            return self.fit(X, y, sample_weight)
        self._fit_more(X, y, sample_weight, self._scaling)
        return self

    def predict(self, X: Any) -> Array:
        """Return predictions, float32, (n,) or (n, n_outputs) as `y` was.

        Parameters
        ----------
        X : sequence of n images
        """
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
        centre, scale = known or _moments(Y, weight)
        if Y.shape[1] != len(centre):
            raise InputError(
                f"y must have {len(centre)} columns, as in the first call; got {Y.shape[1]}."
            )
        scale = np.where(scale > 0, scale, 1.0)
        self._scaling = centre, scale
        standardised = (Y - centre) / scale

        def probe(embeddings: Array, rows: Array, groups: Any, alpha: Any) -> Any:
            head = LinearProbeRegressor("loo" if alpha is None else alpha)
            head.fit(embeddings[rows], standardised[rows], weight[rows], groups)
            return head.coef_, head.intercept_, head.alpha_

        return Problem(
            "squared", standardised, weight, Y.shape[1], None, probe, lambda alpha: alpha
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _moments(Y: Array, weight: Array) -> tuple[Array, Array]:
    """Return the weighted mean and standard deviation of each column."""
    centre = np.average(Y, axis=0, weights=weight)
    return centre, np.sqrt(np.average(np.square(Y - centre), axis=0, weights=weight))
