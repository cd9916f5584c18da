"""What all choices of one fit share: images, targets, groups, embeddings, and the time left."""

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
from featuretl._learning.groups import copies_of, joined, read_groups
from featuretl._learning.targets import Targets
from featuretl.backbones.backbone import load_backbone
from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.extraction.embedder import ImageEmbedder
from featuretl.extraction.extraction import extract
from featuretl.images.inputs import as_images
from featuretl.novelty.detector import NoveltyDetector
from featuretl.transfer.tasks import Task

_TIMED = 32
# Many images need fewer epochs: on all of sign-digits, six reach 0.977 and twelve 0.980 of 399 images.
_IMAGES_SEEN, _EPOCHS = 6000, (6, 12)
# Whose probabilities are fitted to the log-loss, so that it may be compared.
_CALIBRATED = ("linear", "fine-tune")


class Problem:
    """The images and targets of one `fit`.

    Attributes
    ----------
    images : sequence of n images
    task : Classes, Tags or Numbers
    groups : ndarray of shape (n,), int, or None
    n_copies : int
        Images with the content of another one; see `keep_copies_together`.
    seed : int
    budget : float
        Seconds that the whole fit may take.

    Embeddings (n, d) that are there already are taken, by the names of their backbones.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        groups: Any,
        task: Callable[..., Task],
        y: Any,
        embeddings: dict[str, Array] | None = None,
    ) -> None:
        self.owner = type(estimator).__name__
        self._p = estimator
        self._began = time.monotonic()
        self.budget = np.inf if estimator.time_budget is None else float(estimator.time_budget)
        self.images: Sequence[Any] = as_images(X, self.owner)
        self.task: Task = task(estimator, y, len(self.images))
        self.groups = read_groups(self.owner, groups, len(self.images))
        self.n_copies = 0
        self.seed = int(random_generator(self.owner, estimator.random_state).randint(2**31 - 1))
        self._embeddings: dict[str, Array] = embeddings or {}

    @property
    def n(self) -> int:
        """Images."""
        return len(self.images)

    def seconds_left(self) -> float:
        """Return what is left of the time budget; infinite without one."""
        return self.budget - (time.monotonic() - self._began)

    def embedder(self, backbone: str) -> ImageEmbedder:
        """Return the transformer of a backbone."""
        p = self._p
        common = {"weights": p.weights, "device": p.device, "n_jobs": p.n_jobs, "cache": p.cache}
        return ImageEmbedder(backbone, **common, verbose=p.verbose)

    def embeddings(self, backbone: str) -> Array:
        """Return the embeddings (n, d) of all images."""
        if backbone not in self._embeddings:
            embedded = self.embedder(backbone).transform(self.images)
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
        return head.fit(self.embeddings(backbone)[rows], self.task.y[rows], **options)

    def new_head(self, strategy: str, rows: Array, last: bool = False) -> Any:
        """Return the head that is right for `rows`, unfitted."""
        try:
            self.folds(rows, 2)
            foldable = True
        except InputError:
            foldable = False
        return self.task.head(strategy, len(rows), foldable, last, self.seed)

    def judge(self, model: Any, strategy: str, rows: Array, backbone: str) -> tuple[Array, Array]:
        """Return the score and the loss of each of `rows`, (k,) each, by a fitted candidate."""
        if strategy == "fine-tune":
            X: Any = [self.images[i] for i in rows]
        else:
            X = self.embeddings(backbone)[rows]
        return self.task.judge(model, X, rows, strategy in _CALIBRATED)

    def fine_tune(self, backbone: str, seconds: float = np.inf, **settings: Any) -> Any:
        """Return an estimator, unfitted, that trains for so many seconds at most."""
        p = self._p
        epochs = int(np.clip(round(_IMAGES_SEEN / self.n), *_EPOCHS))
        budget = None if np.isinf(seconds) else max(0.1, seconds)
        common = {"weights": p.weights, "device": p.device, "n_jobs": p.n_jobs, "cache": p.cache}
        return self.task.fine_tune(
            backbone,
            **common,
            **settings,
            epochs=epochs,
            time_budget=budget,
            random_state=self.seed,
            verbose=p.verbose,
        )

    def pipeline(self, backbone: str, head: Any) -> Any:
        """Return images -> embeddings -> a fitted head."""
        return make_pipeline(self.embedder(backbone), head)

    @property
    def has_different_groups(self) -> bool:
        """Whether any image can be held out from another."""
        return self.n > 1 if self.groups is None else len(np.unique(self.groups)) > 1

    def novelty(self, backbone: str) -> Any:
        """Return images -> embeddings -> a fitted `NoveltyDetector`."""
        detector = NoveltyDetector(random_state=self.seed)
        detector.fit(self.embeddings(backbone), groups=self.groups)
        return make_pipeline(self.embedder(backbone), detector)

    def folds(self, rows: Array, cv: Any) -> tuple[Array, str]:
        """Return the fold that holds out each of `rows`, -1 for none, and a clause on how many.

        Raises
        ------
        InputError
            If nothing can be held out, or images of one class only.
        """
        targets = Targets(self.task.targets.classes, self.task.targets.codes[rows])
        groups = None if self.groups is None else self.groups[rows]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureTLWarning)
            fold, n_folds = fold_of_rows(self.owner, targets, groups, cv, self.seed)
        why = [str(w.message) for w in caught if issubclass(w.category, FeatureTLWarning)]
        if not judges(targets, fold):
            raise InputError(" ".join(why))
        if self.n_copies:
            why.append(f"{self.n_copies:,} of {self.n:,} images are copies; copies share a fold.")
        return fold, " ".join([f"{n_folds} folds.", *why])

    def taken(self, rows: Array) -> tuple[list[Any], Array, Array | None]:
        """Return the images, targets and groups of `rows`."""
        images = [self.images[i] for i in rows]
        return images, self.task.y[rows], None if self.groups is None else self.groups[rows]

    def seconds_per_image(self, backbone: str) -> float:
        """Return how long an image takes from file to embedding, measured on 32 of them."""
        sample = [self.images[i] for i in range(min(self.n, _TIMED))]
        loaded = load_backbone(backbone, weights=self._p.weights, device=self._p.device)
        extract(sample, loaded, runtime="torch", n_jobs=self._p.n_jobs)
        began = time.monotonic()
        extract(sample, loaded, runtime="torch", n_jobs=self._p.n_jobs)
        return (time.monotonic() - began) / len(sample)
