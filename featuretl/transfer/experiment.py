"""Experiment: the images, targets, groups, embeddings and time that all candidates of a fit share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import has_fit_parameter

from featuretl._core.parameters import random_generator
from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows, judges
from featuretl._learning.groups import copies_of, joined, read_groups, subset
from featuretl._learning.targets import Targets
from featuretl.backbones.backbone import load_backbone
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.extraction.embedder import ImageEmbedder
from featuretl.extraction.extraction import extract
from featuretl.images.inputs import as_images
from featuretl.transfer.targets import TransferTargets

_TIMED = 32
# Many images need fewer epochs: on all of sign-digits, six reach 0.977 and twelve 0.980 of 399 images.
_IMAGES_SEEN, _EPOCHS = 6000, (6, 12)
# Strategies whose probabilities are fitted to the log-loss, so that log-losses can be compared.
_CALIBRATED = ("linear", "fine-tune")
# Fractions of the time left that a fine-tuning may take: before the last one, and the last one.
_OUTER_FRACTION, _LAST_FRACTION = 0.45, 0.95


class Experiment:
    """The images and targets of one `fit`, and the candidates fitted to them.

    `read(estimator, y, n)` returns the targets. The parameters of the estimator say how images are
    embedded and for how long networks are trained; `embeddings`, (n, d) by the name of their backbone,
    are those that exist already. `n_copies` images have the content of another one.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        groups: Any,
        read: Callable[..., TransferTargets],
        embeddings: dict[str, Array] | None = None,
    ) -> None:
        self.owner = type(estimator).__name__
        self._p = estimator
        self._began = time.monotonic()
        self.budget = np.inf if estimator.time_budget is None else float(estimator.time_budget)
        self.images: Sequence[Any] = as_images(X, self.owner)
        self.targets: TransferTargets = read(estimator, y, len(self.images))
        self.groups = read_groups(self.owner, groups, len(self.images))
        self.n_copies = 0
        self.seed = int(random_generator(self.owner, estimator.random_state).randint(2**31 - 1))
        self._embeddings: dict[str, Array] = embeddings or {}

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.images)

    def seconds(self) -> float:
        """Return how long the fit has taken so far."""
        return time.monotonic() - self._began

    def seconds_left(self) -> float:
        """Return what is left of the time budget; infinite without one."""
        return self.budget - self.seconds()

    def embeddings(self, backbone: str) -> Array:
        """Return the embeddings (n, d) of all images."""
        if backbone not in self._embeddings:
            embedded = embedder_of(self._p, backbone).transform(self.images)
            self._embeddings[backbone] = np.asarray(embedded)  # whatever set_output asks for
        return self._embeddings[backbone]

    def keep_copies_together(self, backbone: str) -> None:
        """Give images with the same content, and so the same embedding, one group."""
        copies = copies_of(self.embeddings(backbone))
        if copies is not None:
            self.n_copies = self.n - int(copies.max()) - 1
            self.groups = joined(self.groups, copies)

    def head(self, strategy: str, rows: Array, backbone: str, last: bool = False) -> Any:
        """Return a head fitted to `rows`; `last` if it is the one that will predict."""
        head = self.new_head(strategy, rows, last)
        options = {}
        if self.groups is not None and has_fit_parameter(head, "groups"):
            options["groups"] = self.groups[rows]
        return head.fit(self.embeddings(backbone)[rows], self.targets.y[rows], **options)

    def new_head(self, strategy: str, rows: Array, last: bool = False) -> Any:
        """Return an unfitted head for `rows`, which cross-validates where these can be split."""
        try:
            self.folds(rows, 2)
            foldable = True
        except InputError:
            foldable = False
        return self.targets.head(strategy, len(rows), foldable, last, self.seed)

    def fit(
        self, strategy: str, backbone: str, settings: Any, rows: Array, last: bool = False
    ) -> Any:
        """Return a candidate fitted to `rows`; with `last` an estimator that takes images."""
        if strategy == "fine-tune":
            fraction = _LAST_FRACTION if last else _OUTER_FRACTION
            seconds = max(0.1, fraction * self.seconds_left())
            model = self.fine_tune(backbone, seconds, **settings)
            images, y, groups = self.subset(rows)
            if model.fit(images, y, groups=groups).stopped_ == "interrupted":
                raise KeyboardInterrupt
            return model
        with warnings.catch_warnings():
            if not last:
                warnings.simplefilter("ignore", FeatureTLWarning)
            head = self.head(strategy, rows, backbone, last)
        return make_pipeline(embedder_of(self._p, backbone), head) if last else head

    def judge(self, model: Any, strategy: str, rows: Array, backbone: str) -> tuple[Array, Array]:
        """Return the score and the loss of each of `rows`, (k,) each, by a fitted candidate."""
        if strategy == "fine-tune":
            X: Any = [self.images[i] for i in rows]
        else:
            X = self.embeddings(backbone)[rows]
        return self.targets.judge(model, X, rows, strategy in _CALIBRATED)

    def fine_tune(self, backbone: str, seconds: float = np.inf, **settings: Any) -> Any:
        """Return an unfitted fine-tuning estimator that trains for `seconds` at most."""
        epochs = int(np.clip(round(_IMAGES_SEEN / self.n), *_EPOCHS))
        budget = None if np.isinf(seconds) else max(0.1, seconds)
        return self.targets.fine_tune(
            backbone,
            **_shared_parameters(self._p),
            **settings,
            epochs=epochs,
            time_budget=budget,
            random_state=self.seed,
        )

    def folds(self, rows: Array, cv: Any) -> tuple[Array, str]:
        """Return the fold that holds out each of `rows`, -1 for none, and a clause on how many.

        Raises
        ------
        InputError
            If nothing can be held out, or images of one class only.
        """
        targets = Targets(self.targets.coded.classes, self.targets.coded.codes[rows])
        groups = subset(self.groups, rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureTLWarning)
            fold, n_folds = fold_of_rows(self.owner, targets, groups, cv, self.seed)
        why = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
        if not judges(targets, fold):
            raise InputError(" ".join(why))
        if self.n_copies:
            why.append(f"{self.n_copies:,} of {self.n:,} images are copies; copies share a fold.")
        return fold, " ".join([f"{n_folds} folds.", *why])

    def subset(self, rows: Array) -> tuple[list[Any], Array, Array | None]:
        """Return the images, targets and groups of `rows`."""
        return [self.images[i] for i in rows], self.targets.y[rows], subset(self.groups, rows)

    def seconds_per_image(self, backbone: str) -> float:
        """Return how long an image takes from file to embedding, measured on 32 of them."""
        sample = [self.images[i] for i in range(min(self.n, _TIMED))]
        loaded = load_backbone(backbone, weights=self._p.weights, device=self._p.device)
        for _ in range(2):  # the first is to warm up
            began = time.monotonic()
            extract(sample, loaded, runtime="torch", n_jobs=self._p.n_jobs)
        return (time.monotonic() - began) / len(sample)


def embedder_of(estimator: Any, backbone: str) -> ImageEmbedder:
    """Return the transformer of a backbone with the parameters of a transfer estimator."""
    return ImageEmbedder(backbone, **_shared_parameters(estimator))


def _shared_parameters(estimator: Any) -> dict[str, Any]:
    names = ("weights", "device", "n_jobs", "cache", "verbose")
    return {name: getattr(estimator, name) for name in names}
