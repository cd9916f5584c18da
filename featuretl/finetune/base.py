"""The base class of the fine-tuning estimators: parameters, training, embeddings and history."""

from __future__ import annotations

import numbers
import os
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import joblib
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from featuretl._core.parameters import (
    axes_or_new,
    check_int,
    check_number,
    check_option,
    is_bool,
    is_word,
    parameter_error,
)
from featuretl._core.types import Array
from featuretl._learning.refit import forget
from featuretl.backbones.spec import BackboneSpec
from featuretl.backbones.views import STRENGTHS
from featuretl.extraction.embedder import ImageEstimator
from featuretl.extraction.extraction import check_parameters as check_extraction
from featuretl.finetune.activations import FreshActivations, StoredActivations, split_rows
from featuretl.finetune.fitting import Fitting
from featuretl.finetune.loop import outputs_of
from featuretl.finetune.training import Training
from featuretl.finetune.trunk import Trunk
from featuretl.images.inputs import as_images
from featuretl.store.store import resolve_store


@dataclass(eq=False, repr=False)
class BaseFineTune(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator):
    """Base of `FineTuneClassifier` and `FineTuneRegressor`."""

    backbone: Any = "tf_efficientnet_lite0"
    _: KW_ONLY
    weights: Any = "auto"
    n_blocks: int | str = 3
    head: Any = "probe"
    learning_rate: float | str = "auto"
    epochs: int = 12
    batch_size: int = 32
    augment: Any = "auto"
    early_stopping: int | None = None
    cache_trunk: bool | str = "auto"
    time_budget: float | None = None
    checkpoint: Any = None
    training: Training | None = None
    device: str = "auto"
    n_jobs: int | None = None
    cache: Any = "auto"
    random_state: Any = None
    verbose: int = 0

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the head and the last blocks.

        Parameters
        ----------
        X : sequence of n images
            As for `ImageEmbedder`.
        y : array-like of shape (n,) or (n, n_outputs), or n lists of labels
            At least two classes, or an indicator of 0 and 1; for the regressor finite numbers.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights of the images.
        groups : array-like of shape (n,), default=None
            The inner split never divides a group. The default for crops is their file.

        Raises
        ------
        ParameterError, InputError
            If a parameter or `y` is invalid, or lengths differ.
        ImageError, BackboneError
            If an image cannot be read, or a backbone of `n_blocks` blocks cannot be loaded.
        """
        return self._fit(X, y, sample_weight, groups)

    def transform(self, X: Any) -> Array:
        """Return the embeddings of X, float32 (n, d): the input of the head, or of other heads."""
        return self._outputs(X, "top")

    @property
    def history_(self) -> Any:
        """A pandas frame with one row per epoch.

        `stage` ("search" or "fit"), `n_blocks` and `learning_rate` identify the run; `rate` is the
        learning rate of the head at the end of the epoch, `loss` the mean training loss and
        `seconds` the duration. `validation_loss` and `validation_score` are measured on held-out
        images (NaN without any); the score is the accuracy, or the negative squared error of
        standardised targets.
        """
        import pandas

        check_is_fitted(self)
        columns = "stage n_blocks learning_rate epoch rate loss validation_loss validation_score"
        return pandas.DataFrame(self._records, columns=[*columns.split(), "seconds"])

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the losses of all epochs into `ax`, or into a new figure; return the axes.

        Raises FeatureTLError without matplotlib.
        """
        table = self.history_
        ax = axes_or_new(ax)
        number = (table["epoch"] == 1).cumsum()  # a candidate can have several runs
        runs = table.groupby(["stage", "n_blocks", "learning_rate", number.rename("run")])
        for (stage, blocks, rate, _), run in runs:
            label = f"{stage}: {blocks} blocks, rate {rate:g}"
            (line,) = ax.plot(run["epoch"], run["loss"], label=label)
            if run["validation_loss"].notna().any():
                style = {"linestyle": "--", "color": line.get_color()}
                ax.plot(run["epoch"], run["validation_loss"], label=f"{label}, held out", **style)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.legend()
        return ax

    def search(self, X: Any, y: Any, *, groups: Any = None, held_out: Any = None) -> Bunch:
        """Run the search of ``learning_rate="auto"`` without fitting the estimator.

        Parameters
        ----------
        X, y, groups
            As in `fit`.
        held_out : array-like of int, default=None
            Positions of the images that score the candidates; None holds out
            `validation_fraction` of the images.

        Returns
        -------
        Bunch
            `learning_rate` and `n_blocks` of the best candidate (None if time ran out);
            `held_out` (k,), the positions of the held-out images; their `losses` and `scores`,
            float64 (k,), and those of the probe, `probe_losses` and `probe_scores`, as in
            `history_`; `worthwhile`, whether the candidate beat the probe; `decision`, a sentence;
            `cache_trunk`, as `cache_trunk_`; `interrupted`, whether Ctrl-C ended the search.
        """
        fitting = clone(self)._begin(X, y, None, groups, None)
        choice, rows = fitting.search(None if held_out is None else np.sort(held_out))
        rate, n_blocks = choice.candidate or (None, None)
        return Bunch(
            learning_rate=rate,
            n_blocks=n_blocks,
            held_out=rows,
            losses=choice.best.losses,
            scores=choice.best.scores,
            probe_losses=choice.base.losses,
            probe_scores=choice.base.scores,
            worthwhile=choice.worthwhile,
            decision=choice.explain(),
            cache_trunk=fitting.plan,
            interrupted=choice.interrupted,
        )

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
        """Continue training for `epochs`, at the learning rate of `fit`."""
        fitting = self._begin(X, y, sample_weight, None, known)
        self._tuned = fitting.resume(self._tuned, self.learning_rate_)
        last = max((r["epoch"] for r in self._records if r["stage"] == "fit"), default=0)
        self._records += [r | {"epoch": r["epoch"] + last} for r in fitting.records]
        self._cached = fitting.plan.cached
        self.stopped_ = fitting.stopped
        self.fine_tuned_, self.n_blocks_ = True, fitting.learning_blocks

    def _begin(self, X: Any, y: Any, sample_weight: Any, groups: Any, known: Any) -> Fitting:
        self._check_parameters()
        owner = type(self).__name__
        images = as_images(X, owner)
        problem = self._problem(images, y, sample_weight, known)
        self.n_features_in_ = 1
        spec = BackboneSpec.of(owner, self.backbone, weights=self.weights)
        if spec.in_chans not in (1, 3):
            raise parameter_error(owner, "backbone", "one of 1 or 3 channels", self.backbone)
        return Fitting(self, spec, images, problem, groups)

    def _outputs(self, X: Any, part: str) -> Array:
        """Return the outputs (n, k) of the "whole" fine-tuned network, or of its "top"."""
        check_is_fitted(self)
        owner = type(self).__name__
        images = as_images(X, owner)
        backbone, trunk, network = self._tuned.live(self.device)
        n_jobs = joblib.effective_n_jobs(-1 if self.n_jobs is None else self.n_jobs)
        activations: Any
        if self._cached:
            assert trunk is not None  # without a trunk nothing is cached  # nosec B101
            stored = Trunk(backbone, trunk, self._tuned.n_blocks, 0, STRENGTHS["none"])
            store = resolve_store(self.cache, owner)
            activations = StoredActivations(images, stored, store, n_jobs)
        else:
            activations = FreshActivations(images, backbone, trunk, STRENGTHS["none"], n_jobs)
        module = network if part == "whole" else network.top
        parts = split_rows(np.arange(len(images)), self.batch_size)
        return np.concatenate([x.cpu().numpy() for x in outputs_of(module, activations, parts)])

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        check_int(owner, "n_blocks", self.n_blocks, 1, "auto", "all")
        if not _is_head(self.head):
            expected = "'probe', 'linear' or ('mlp', width >= 1)"
            raise parameter_error(owner, "head", expected, self.head)
        if not callable(self.augment):
            check_option(owner, "augment", self.augment, ("auto", *STRENGTHS))
        if not is_word(self.cache_trunk, "auto") and not is_bool(self.cache_trunk):
            expected = "'auto', True or False"
            raise parameter_error(owner, "cache_trunk", expected, self.cache_trunk)
        check_int(owner, "epochs", self.epochs, 1)
        check_int(owner, "batch_size", self.batch_size, 1)
        check_int(owner, "early_stopping", self.early_stopping, 1, None)
        check_number(owner, "learning_rate", self.learning_rate, "(0, inf)", "auto")
        check_number(owner, "time_budget", self.time_budget, "(0, inf)", None)
        if self.training is not None and not isinstance(self.training, Training):
            expected = "a featuretl.finetune.Training or None"
            raise parameter_error(owner, "training", expected, self.training)
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, os.PathLike)):
            raise parameter_error(owner, "checkpoint", "a path or None", self.checkpoint)
        check_extraction(owner, self.batch_size, self.n_jobs, "raise", "auto")


def _is_head(head: Any) -> bool:
    if not isinstance(head, (tuple, list)) or len(head) != 2:
        return is_word(head, "probe", "linear")
    kind, width = head
    is_int = isinstance(width, numbers.Integral) and not is_bool(width)
    return is_word(kind, "mlp") and is_int and width >= 1
