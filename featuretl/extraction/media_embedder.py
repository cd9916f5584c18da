"""MediaEmbedder: sounds, videos, texts or items of your own as a scikit-learn transformer."""

from __future__ import annotations

import os
import warnings
from typing import Any, Self

import numpy as np

from featuretl._core.parameters import parameter_error
from featuretl.exceptions import FeatureTLWarning
from featuretl.extraction.embedder import Embedder
from featuretl.extraction.extraction import (
    Extraction,
    check_parameters,
    describe_failures,
    extract,
    recipe_of,
)
from featuretl.extraction.progress import progress_bar
from featuretl.media.items import as_items
from featuretl.media.medium import Medium, is_medium
from featuretl.store.keys import Recipe
from featuretl.store.store import EmbeddingStore, resolve_store


class MediaEmbedder(Embedder):
    """Turn sounds, videos, texts or items of your own into embeddings, each computed once.

    What `featuretl.ImageEmbedder` does with images, through the same engine and store.

    Parameters
    ----------
    medium : Medium
        `featuretl.media.Sound()`, `featuretl.media.Video()`, `featuretl.media.Text()`, or what you wrote; see
        `featuretl.media.medium.Medium`.
    batch_size : int or "auto", default="auto"
        Items per forward pass; "auto" grows while that is faster.
    n_jobs : int, optional
        Threads, each of which takes batches from the files through the network; None or -1 is one
        per usable core.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where embeddings are kept; see `featuretl.ImageEmbedder`, with which it may be shared.
    on_error : {"raise", "nan"}, default="raise"
        A bad item is an ItemError that names it, once all others are embedded and kept; or a row of
        NaN and a warning that names it.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1: items are one column. Set by `fit`.
    feature_names_in_ : ndarray of shape (1,), object
        The column's name, if `fit` was given a frame.

    Notes
    -----
    `save_model` does not keep it: model files are of images. It pickles without weights.

    Examples
    --------
    >>> from featuretl.media import Sound
    >>> rate = 8_000
    >>> tones = [(np.sin(np.arange(rate) * hz * 2 * np.pi / rate), rate) for hz in (220, 440, 880)]
    >>> MediaEmbedder(Sound(seconds=1), cache=None).transform(tones).shape
    (3, 1280)
    """

    def __init__(
        self,
        medium: Medium,
        *,
        batch_size: int | str = "auto",
        n_jobs: int | None = None,
        cache: str | os.PathLike[str] | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        verbose: int = 0,
    ) -> None:
        self.medium = medium
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache = cache
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of `X`; nothing is learnt and no item is opened.

        Parameters
        ----------
        X : sequence of n items
        y : ignored

        Returns
        -------
        self : MediaEmbedder
        """
        self._check_parameters()
        as_items(X, type(self).__name__)
        self._note_columns(X)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed items.

        Parameters
        ----------
        X : sequence of n items
            A list, 1-D array, Series or one-column frame of what the medium takes.

        Returns
        -------
        embeddings : ndarray of shape (n, n_features), float32
            Row i belongs to item i.

        Raises
        ------
        ItemError
            With ``on_error="raise"``, if an item cannot be read.
        BackboneError, ParameterError, InputError, StoreError
            If something cannot be used as it is.
        """
        extraction = self._extract(X, self.on_error)
        if extraction.failures:
            failures, n = extraction.failures, len(extraction.images)
            message = describe_failures(failures, n, what="items")
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
        return extraction.to_numpy()

    def extract(self, X: Any) -> Extraction:
        """Embed items as `transform` does, with every bad item named, whatever `on_error` says.

        Parameters
        ----------
        X : sequence of n items
            See `transform`.

        Returns
        -------
        Extraction
            `to_numpy()` are the embeddings, `failures` the bad items, `recipe` what made them.
        """
        return self._extract(X, "nan")

    def recipe(self) -> Recipe:
        """Return what makes the embeddings (JSON); see `featuretl.store.keys`."""
        self._check_parameters()
        return recipe_of(self.medium, resolve_store(self.cache, type(self).__name__))

    def _extract(self, X: Any, on_error: str) -> Extraction:
        self._check_parameters()
        owner = type(self).__name__
        items = as_items(X, owner)
        with progress_bar(len(items), shown=bool(self.verbose), what="items") as progress:
            return extract(
                items,
                self.medium,
                store=resolve_store(self.cache, owner),
                batch_size=self.batch_size,
                n_jobs=self.n_jobs,
                on_error=on_error,
                progress=progress,
            )

    def _check_parameters(self) -> None:
        owner = type(self).__name__
        if not is_medium(self.medium):
            raise parameter_error(
                owner, "medium", "a Medium such as Sound() or Text()", self.medium
            )
        check_parameters(owner, self.batch_size, self.n_jobs, self.on_error, "auto")

    @property
    def _n_features_out(self) -> int:
        return int(self.recipe()["output"]["n_features"])
