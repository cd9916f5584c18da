"""MediaEmbedder: sounds, videos, texts or items of your own as a scikit-learn transformer."""

from __future__ import annotations

import os

from featuretl._core.parameters import parameter_error
from featuretl.extraction.embedder import Embedder
from featuretl.extraction.extraction import check_parameters
from featuretl.media.items import as_items
from featuretl.media.medium import Medium, is_medium
from featuretl.store.store import EmbeddingStore


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
    >>> import numpy as np
    >>> from featuretl import MediaEmbedder
    >>> from featuretl.media import Sound
    >>> rate = 8_000
    >>> tones = [(np.sin(np.arange(rate) * hz * 2 * np.pi / rate), rate) for hz in (220, 440, 880)]
    >>> MediaEmbedder(Sound(seconds=1), cache=None).transform(tones).shape
    (3, 1280)
    """

    _items = staticmethod(as_items)

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

    def _spec(self) -> Medium:
        owner = type(self).__name__
        if not is_medium(self.medium):
            raise parameter_error(
                owner, "medium", "a Medium such as Sound() or Text()", self.medium
            )
        check_parameters(owner, self.batch_size, self.n_jobs, self.on_error, "auto")
        return self.medium
