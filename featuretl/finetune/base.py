"""Base of the fine-tuning estimators: constructor, training, embeddings and history."""

from __future__ import annotations

from typing import Any, Self

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Bunch, Tags
from sklearn.utils.validation import check_is_fitted

from featuretl._core.types import Array
from featuretl._learning.refit import forget
from featuretl.backbones.spec import BackboneSpec
from featuretl.backbones.views import STRENGTHS
from featuretl.finetune import history
from featuretl.finetune.activations import FoundActivations, FreshActivations, split_rows
from featuretl.finetune.fitting import Fitting
from featuretl.finetune.loop import outputs_of
from featuretl.finetune.parameters import check_parameters
from featuretl.finetune.search import verdict_of
from featuretl.finetune.training import Training
from featuretl.finetune.trunk import Trunk
from featuretl.images.inputs import as_images
from featuretl.store.store import resolve_store


class BaseFineTune(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base of `FineTuneClassifier` and `FineTuneRegressor`."""

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
        self.backbone = backbone
        self.weights = weights
        self.n_blocks = n_blocks
        self.head = head
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.augment = augment
        self.early_stopping = early_stopping
        self.cache_trunk = cache_trunk
        self.time_budget = time_budget
        self.checkpoint = checkpoint
        self.training = training
        self.device = device
        self.n_jobs = n_jobs
        self.cache = cache
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head and the last blocks.

        Parameters
        ----------
        X : sequence of n images
            Paths, bytes, PIL images or uint8 arrays, as for `ImageEmbedder`.
        y : array-like of shape (n,) or (n, n_outputs), or n lists of labels
            For the classifier at least two classes, or 0 and 1 for each label; for the regressor
            finite numbers.
        sample_weight : array-like of shape (n,), default=None
            Weights >= 0 of the images.
        groups : array-like of shape (n,), default=None
            Images of one group stay on one side of the inner split.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ParameterError
            If a parameter has a value that is not accepted.
        InputError
            If `y` has a single class or NaN, or lengths differ; ImageError if an image cannot be
            read.
        BackboneError
            If the backbone cannot be loaded or has fewer blocks.
        """
        return self._fit(X, y, sample_weight, groups)

    def transform(self, X: Any) -> Array:
        """Return the embeddings of the tuned network, for any head.

        Parameters
        ----------
        X : sequence of n images
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, d), float32
            The input of the tuned head; other heads can be trained on it.
        """
        return self._outputs(X, "top")

    @property
    def history_(self) -> Any:
        """A pandas frame with a row per epoch.

        `stage` ("search" or "fit"), `n_blocks` and `learning_rate` say which run it belongs to;
        `rate` is the head's at the end of the epoch, `loss` the mean training loss,
        `validation_loss` and `validation_score` those of held-out images (NaN without any; the
        score is the accuracy, or the negative squared error of standardised targets), `seconds`
        the time of the epoch.
        """
        check_is_fitted(self)
        return history.frame(self._records)

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the losses of all epochs with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        check_is_fitted(self)
        return history.plot(self._records, ax)

    def search(self, X: Any, y: Any, *, groups: Any = None, held_out: Any = None) -> Bunch:
        """Try the rates, and the numbers of blocks, that ``learning_rate="auto"`` tries.

        Nothing is fitted: what was found can be given to `fit`. Runs are a quarter of `epochs`
        long, the better half's half.

        Parameters
        ----------
        X : sequence of n images
        y : array-like
            As in `fit`.
        groups : array-like of shape (n,), default=None
            As in `fit`.
        held_out : array-like of int, default=None
            Positions of the images to judge by; None holds out `validation_fraction` of them.

        Returns
        -------
        Bunch
            `learning_rate` and `n_blocks`, the best; `held_out` (k,), the images it was judged by;
            their `losses` and `scores`, float64 (k,), and the probe's, `probe_losses` and
            `probe_scores`, as in `history_`; `worthwhile`, whether the probe was beaten;
            `decision`, a sentence; `cache_trunk`, as `cache_trunk_`; `interrupted`, whether by
            Ctrl-C. `learning_rate` is None where time ran out.
        """
        fitting = clone(self)._begin(X, y, None, groups, None)
        choice, rows = fitting.search(None if held_out is None else np.sort(held_out))
        rate, blocks = choice.candidate or (None, None)
        return Bunch(
            learning_rate=rate,
            n_blocks=blocks,
            held_out=rows,
            losses=choice.found.losses,
            scores=choice.found.scores,
            probe_losses=choice.base.losses,
            probe_scores=choice.base.scores,
            worthwhile=choice.worthwhile,
            decision=verdict_of(choice),
            cache_trunk=fitting.plan,
            interrupted=choice.interrupted,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags

    @property
    def _n_features_out(self) -> int:
        check_is_fitted(self)
        return self._width

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any, known: Any = None) -> Self:
        forget(self, "_tuned")
        fitting = self._begin(X, y, sample_weight, groups, known)
        self._tuned = fitting.run()
        self._width = fitting.split.n_features
        self._cached = fitting.plan.cached
        self._records = fitting.records
        self.cache_trunk_ = fitting.plan
        self.decision_ = fitting.decision
        self.fine_tuned_ = fitting.fine_tuned
        self.learning_rate_ = float(fitting.learning_rate)
        self.n_blocks_ = fitting.learning_blocks if fitting.fine_tuned else 0
        self.stopped_ = fitting.stopped
        return self

    def _fit_more(self, X: Any, y: Any, sample_weight: Any, known: Any) -> None:
        """Continue training for `epochs`, at the rate that `fit` used."""
        fitting = self._begin(X, y, sample_weight, None, known)
        self._tuned = fitting.resume(self._tuned, self.learning_rate_)
        last = max(
            (record["epoch"] for record in self._records if record["stage"] == "fit"), default=0
        )
        self._records += [r | {"epoch": r["epoch"] + last} for r in fitting.records]
        self._cached = fitting.plan.cached
        self.stopped_ = fitting.stopped
        self.fine_tuned_, self.n_blocks_ = True, fitting.learning_blocks

    def _begin(self, X: Any, y: Any, sample_weight: Any, groups: Any, known: Any) -> Fitting:
        check_parameters(self)
        owner = type(self).__name__
        images = as_images(X, owner)
        problem = self._problem(images, y, sample_weight, known)
        self.n_features_in_ = 1
        return Fitting(self, self._spec(), images, problem, groups)

    def _outputs(self, X: Any, part: str) -> Array:
        """Return the outputs (n, k) of the whole tuned network, or of its top."""
        check_is_fitted(self)
        images = as_images(X, type(self).__name__)
        backbone, trunk, network = self._tuned.live(self.device)
        n_jobs = joblib.effective_n_jobs(-1 if self.n_jobs is None else self.n_jobs)
        activations: Any
        if self._cached:
            store = resolve_store(self.cache, type(self).__name__)
            assert trunk is not None  # what is cached has one  # nosec B101
            stored = Trunk(backbone, trunk, self._tuned.n_blocks, 0, STRENGTHS["none"])
            activations = FoundActivations(images, stored, store, n_jobs)
        else:
            activations = FreshActivations(images, backbone, trunk, STRENGTHS["none"], n_jobs)
        module = network if part == "whole" else network.top
        parts = split_rows(np.arange(len(images)), self.batch_size)
        return np.concatenate([x.cpu().numpy() for x in outputs_of(module, activations, parts)])

    def _spec(self) -> BackboneSpec:
        return BackboneSpec.of(type(self).__name__, self.backbone, weights=self.weights)
