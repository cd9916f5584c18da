"""Experiment: the images, targets, embeddings and time budget that all candidates share."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import has_fit_parameter

from featuretl import finetune
from featuretl._core.parameters import is_word, random_generator
from featuretl._core.types import Array
from featuretl._learning.folds import fold_of_rows, judges
from featuretl._learning.groups import copies_of, joined, read_groups, subset
from featuretl._learning.targets import Targets
from featuretl.backbones.catalog import PACKAGED, packaged_file
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.extraction.embedder import ImageEmbedder
from featuretl.extraction.extraction import extract
from featuretl.images.crops import or_files
from featuretl.images.inputs import as_images
from featuretl.transfer.targets import TransferTargets

# Large data sets need fewer epochs: trained on all other images of sign-digits, six epochs reach an
# accuracy of 0.977 on 399 images, and twelve reach 0.980.
_IMAGES_SEEN, _EPOCHS = 6000, (6, 12)
_CALIBRATED = ("linear", "fine-tune")  # they minimise the log-loss: it can be compared
# Limits on fine-tuning, as fractions of the remaining time: for the outer score, and on all images.
_OUTER_FRACTION, _LAST_FRACTION = 0.45, 0.95


class Experiment:
    """The images and targets of one `fit`, and how to embed, fit and evaluate."""

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
        self._p, self.cv, self.backbones = estimator, estimator.cv, list(backbones_of(estimator))
        self._began = time.monotonic()
        self.budget = np.inf if estimator.time_budget is None else float(estimator.time_budget)
        self.images: Sequence[Any] = as_images(X, self.owner)
        self.n = len(self.images)
        self.targets: TransferTargets = read(estimator, y, self.n)
        self.groups = read_groups(self.owner, or_files(groups, self.images), self.n)
        self.n_copies = 0  # images that are copies of other images
        self.seed = int(random_generator(self.owner, estimator.random_state).randint(2**31 - 1))
        self._embeddings: dict[str, Array] = embeddings or {}  # (n, d), by backbone

    def seconds(self) -> float:
        """Return the duration of the fit so far."""
        return time.monotonic() - self._began

    def seconds_left(self) -> float:
        """Return the remaining time budget, which is infinite by default."""
        return self.budget - self.seconds()

    def embeddings(self, backbone: str) -> Array:
        """Return the embeddings (n, d) of all images."""
        if backbone not in self._embeddings:
            embedded = embedder_of(self._p, backbone).transform(self.images)
            self._embeddings[backbone] = np.asarray(embedded)  # set_output may give a frame
        return self._embeddings[backbone]

    def keep_copies_together(self, backbone: str) -> None:
        """Put images with the same embedding, and so the same content, into one group."""
        copies = copies_of(self.embeddings(backbone))
        if copies is not None:
            self.n_copies = self.n - int(copies.max()) - 1
            self.groups = joined(self.groups, copies)

    def head(self, strategy: str, rows: Array, backbone: str, last: bool = False) -> Any:
        """Return a head fitted to `rows`; `last` means that it will be used for prediction."""
        head = self.new_head(strategy, rows, last)
        options = {}
        if self.groups is not None and has_fit_parameter(head, "groups"):
            options["groups"] = self.groups[rows]
        return head.fit(self.embeddings(backbone)[rows], self.targets.y[rows], **options)

    def new_head(self, strategy: str, rows: Array, last: bool = False) -> Any:
        """Return an unfitted head for `rows`, which cross-validates if these can be split."""
        foldable = False
        with contextlib.suppress(InputError):
            self.folds(rows, 2)
            foldable = True
        return self.targets.head(strategy, len(rows), foldable, last, self.seed)

    def fit(self, trial: Any, rows: Array, last: bool = False) -> Any:
        """Return the candidate of a `Trial` fitted to `rows`; if `last`, an estimator of images."""
        backbone = trial.backbone
        if trial.strategy == "fine-tune":
            fraction = _LAST_FRACTION if last else _OUTER_FRACTION
            model = self.fine_tune(backbone, fraction * self.seconds_left(), **trial.settings)
            images, y, groups = self.subset(rows)
            if model.fit(images, y, groups=groups).stopped_ == "interrupted":
                raise KeyboardInterrupt
            return model
        with warnings.catch_warnings():
            if not last:
                warnings.simplefilter("ignore", FeatureTLWarning)
            head = self.head(trial.strategy, rows, backbone, last)
        return make_pipeline(embedder_of(self._p, backbone), head) if last else head

    def evaluate(self, model: Any, trial: Any, rows: Array) -> tuple[Array, Array]:
        """Return the scores and losses of `rows`, (k,) each, by the fitted `model` of a trial."""
        tuned = trial.strategy == "fine-tune"
        X = [self.images[i] for i in rows] if tuned else self.embeddings(trial.backbone)[rows]
        return self.targets.evaluate(model, X, rows, trial.strategy in _CALIBRATED)

    def fine_tune(self, backbone: str, seconds: float = np.inf, **settings: Any) -> Any:
        """Return an unfitted fine-tuning estimator with a time limit of `seconds`."""
        epochs = int(np.clip(round(_IMAGES_SEEN / self.n), *_EPOCHS))
        budget = None if np.isinf(seconds) else max(0.1, seconds)
        return getattr(finetune, self.targets.fine_tuning)(
            backbones_of(self._p)[backbone],
            **_shared_parameters(self._p),
            **settings,
            epochs=epochs,
            time_budget=budget,
            random_state=self.seed,
        )

    def folds(self, rows: Array, cv: Any) -> tuple[Array, str]:
        """Return the fold of each row, -1 for none, and a sentence; InputError if none judges."""
        targets = Targets(self.targets.coded.classes, self.targets.coded.codes[rows])
        groups = subset(self.groups, rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureTLWarning)
            fold = fold_of_rows(self.owner, targets, groups, cv, self.seed)
        why = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
        if not judges(targets, fold):
            raise InputError(" ".join(why))
        if self.n_copies:
            why.append(f"{self.n_copies:,} of {self.n:,} images are copies; copies share a fold.")
        return fold, " ".join([f"{fold.max() + 1} folds.", *why])

    def subset(self, rows: Array) -> tuple[list[Any], Array, Array | None]:
        """Return the images, targets and groups of `rows`."""
        return [self.images[i] for i in rows], self.targets.y[rows], subset(self.groups, rows)

    def seconds_per_image(self, backbone: str) -> float:
        """Return the time from file to embedding per image, measured on 32 images."""
        from featuretl.backbones.backbone import load_spec

        sample = [self.images[i] for i in range(min(self.n, 32))]
        given = backbones_of(self._p)[backbone]
        weights, device = self._p.weights, self._p.device
        loaded = load_spec(BackboneSpec.of(self.owner, given, weights=weights), device)
        for _ in range(2):  # the first run is a warm-up
            began = time.monotonic()
            extract(sample, loaded, runtime="torch", n_jobs=self._p.n_jobs)
        return (time.monotonic() - began) / len(sample)


def backbones_of(estimator: Any) -> dict[str, Any]:
    """Return the backbones (a name or a Backbone each) of a transfer estimator, by name."""
    given = estimator.backbone
    if is_word(given, "auto"):
        given = [name for name in PACKAGED if packaged_file(name)]
    listed = given if isinstance(given, (list, tuple)) else [given]
    specs: list[Any] = [getattr(one, "spec", one) for one in listed]
    names = [spec if isinstance(spec, str) else spec.name for spec in specs]
    return dict(zip(names, listed, strict=True))


def embedder_of(estimator: Any, backbone: str) -> ImageEmbedder:
    """Return an `ImageEmbedder` with the parameters of a transfer estimator."""
    return ImageEmbedder(backbones_of(estimator)[backbone], **_shared_parameters(estimator))


def _shared_parameters(estimator: Any) -> dict[str, Any]:
    names = ("weights", "device", "n_jobs", "cache", "verbose")
    return {name: getattr(estimator, name) for name in names}
