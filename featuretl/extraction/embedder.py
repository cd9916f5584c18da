"""scikit-learn transformers from images or other media to pretrained embeddings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from featuretl._core.parameters import parameter_error
from featuretl.backbones.spec import PRE_LOGITS, BackboneSpec, Layer
from featuretl.exceptions import FeatureTLWarning
from featuretl.extraction.extraction import Extraction, check_parameters, describe_failures, extract
from featuretl.extraction.source import Source
from featuretl.extraction.statistics import embedding_bar
from featuretl.images.inputs import as_images
from featuretl.media.items import as_items
from featuretl.media.medium import Medium, is_medium
from featuretl.store.keys import Recipe
from featuretl.store.store import EmbeddingStore, resolve_store

if TYPE_CHECKING:
    from featuretl.backbones.backbone import Backbone


class ImageEstimator(BaseEstimator):
    """An estimator whose input is one column of images, or of items of another medium."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator):
    """A stateless transformer from one column of images or items to embeddings."""

    # A subclass defines the plural noun for messages, further parameters for `extract`, the input
    # check, and `_spec`, which returns the checked backbone or medium.
    _what = "items"
    _options: tuple[str, ...] = ()
    _items: Callable[[Any, str], Sequence[Any]]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the type of `X`, as in `transform`; open no image, ignore `y`."""
        self._spec()
        if not isinstance(X, Iterator):  # `transform` reads it
            self._items(X, type(self).__name__)
        self.n_features_in_ = 1
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images or items.

        Parameters
        ----------
        X : sequence of n images or items
            A list, 1-D object or str array, Series or one-column DataFrame. Images are paths, URLs,
            crops (`featuretl.images.Crop`), bytes of image files, PIL images, or arrays or tensors
            (h, w), (h, w, c) or (c, h, w), where c is 1, 3 or 4, of uint8 or of floats in [0, 1];
            or one array or tensor of n such images; a torchvision ImageFolder; or a Hugging Face
            dataset with one column of images. For items see the medium.

        Returns
        -------
        embeddings : ndarray of shape (n, n_features), float32
            Row i belongs to image or item i; (n, h, w, d) with ``pooling="grid"``.

        Raises
        ------
        ImageError
            With ``on_error="raise"``, if an image cannot be read; for items an ItemError.
        BackboneError, ParameterError, InputError, StoreError
            If the backbone, a parameter, the input or the store cannot be used.
        """
        extraction = self._extract(X, self.on_error)
        if extraction.failures:
            n = len(extraction.images)
            message = describe_failures(extraction.failures, n, what=self._what)
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
        return extraction.to_numpy()

    def extract(self, X: Any) -> Extraction:
        """Embed `X` as `transform` does with ``on_error="nan"``; return all that is known about it.

        `to_numpy()` of the result returns the embeddings, `failures` names the unreadable images or
        items, and `statistics` counts them.
        """
        return self._extract(X, "nan")

    def recipe(self) -> Recipe:
        """Return everything that determines the embeddings (JSON); see `featuretl.store.keys`.

        The backbone is loaded only if the cache does not hold its recipe.
        """
        return Source(self._spec(), resolve_store(self.cache, type(self).__name__)).recipe()

    def _extract(self, X: Any, on_error: str) -> Extraction:
        owner, backbone = type(self).__name__, self._spec()
        items = self._items(X, owner)
        options = {name: getattr(self, name) for name in ("batch_size", "n_jobs", *self._options)}
        with embedding_bar(len(items), self._what, shown=bool(self.verbose)) as progress:
            return extract(
                items,
                backbone,
                store=resolve_store(self.cache, owner),
                on_error=on_error,
                progress=progress,
                **options,
            )

    @property
    def _n_features_out(self) -> int:
        return int(self.recipe()["output"]["n_features"])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


@dataclass(eq=False, repr=False)
class ImageEmbedder(Embedder):
    """Turn images into embeddings of a pretrained network, each computed once.

    The transformer is stateless: `transform` needs no `fit`. Embeddings are cached on disk, keyed
    by the content of the image and everything that determines its embedding, and shared by all
    clones, folds and processes: a grid search embeds every image once. Weights are loaded only if
    an image is not in the cache, and never pickled.

    Parameters
    ----------
    backbone : str or Backbone, default="tf_efficientnet_lite0"
        Any name that `load_backbone` accepts; the default's weights are installed with featuretl.
        Or a backbone such as a network of your own (`Backbone.of`).
    weights, layers, pooling, normalize, precision, views, image_size, crop_pct, in_chans, decode
        As in `load_backbone`, and with other values than the defaults also for a loaded backbone.
        With ``pooling="grid"``, `transform` returns (n, h, w, d), for example for a classifier of
        patches.
    device, runtime, batch_size, n_jobs, decode_timeout
        As in `extract`. Unlike in scikit-learn, ``n_jobs=None`` uses all cores.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Cache of embeddings: "auto" is the folder named by the environment variable
        ``FEATURETL_CACHE``, or the user's cache directory; None caches nothing.
    on_error : {"raise", "nan"}, default="raise"
        Error policy for unreadable images: raise an ImageError that names them, once all others are
        embedded and cached; or return rows of NaN and issue a warning that names them.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1, because images are one column; set by `fit`.
    feature_names_in_ : ndarray of shape (1,), object
        The column's name, if `fit` was given a DataFrame.

    See Also
    --------
    load_image_folder : List a folder of images whose subfolders are classes.
    extract : Embedding function with statistics, failures and memory-mapped results.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn.linear_model import LogisticRegression
    >>> images = load_sample_images().images
    >>> pipe = make_pipeline(ImageEmbedder(cache=None), StandardScaler(), LogisticRegression())
    >>> pipe.fit(images, ["temple", "flower"]).predict(images).tolist()
    ['temple', 'flower']
    """

    _what = "images"
    _options = ("device", "runtime", "decode_timeout")
    _items = staticmethod(as_images)

    backbone: str | Backbone = "tf_efficientnet_lite0"
    _: KW_ONLY
    weights: str | os.PathLike[str] = "auto"
    layers: Layer | Sequence[Layer] = PRE_LOGITS
    pooling: str = "auto"
    normalize: bool = False
    precision: str = "auto"
    views: int | str = 1
    image_size: int | tuple[int, int] | None = None
    crop_pct: float | None = None
    in_chans: int = 3
    decode: str = "full"
    device: Any = "auto"
    runtime: str = "auto"
    batch_size: int | str = "auto"
    n_jobs: int | None = None
    cache: str | os.PathLike[str] | EmbeddingStore | None = "auto"
    on_error: str = "raise"
    decode_timeout: float | None = None
    verbose: int = 0

    def _spec(self) -> BackboneSpec:
        owner = type(self).__name__
        check_parameters(
            owner, self.batch_size, self.n_jobs, self.on_error, self.runtime, self.decode_timeout
        )
        given: dict[str, Any] = {name: getattr(self, name) for name in _BACKBONE}
        return BackboneSpec.of(owner, self.backbone, **given)


_BACKBONE = (  # parameters of `load_backbone`
    "weights", "layers", "pooling", "normalize", "precision", "views", "image_size", "crop_pct",
    "in_chans", "decode",
)  # fmt: skip


@dataclass(eq=False, repr=False)
class MediaEmbedder(Embedder):
    """Turn sounds, videos, texts or your own kind of items into embeddings, each computed once.

    Parameters
    ----------
    medium : Medium
        `featuretl.media.Sound()`, `featuretl.media.Video()`, `featuretl.media.Text()`, or an object
        with the methods of `featuretl.media.medium.Medium`.
    batch_size, n_jobs, cache, on_error, verbose
        As in `ImageEmbedder`, with items and ItemError in the place of images and ImageError. The
        two may share a cache.

    Notes
    -----
    Attributes are those of `ImageEmbedder`. `save_model` does not accept this transformer, because
    model files take images. Pickling it does not include weights.

    Examples
    --------
    >>> from featuretl.media import Sound
    >>> rate = 8_000
    >>> tones = [(np.sin(np.arange(rate) * hz * 2 * np.pi / rate), rate) for hz in (220, 440, 880)]
    >>> MediaEmbedder(Sound(seconds=1), cache=None).transform(tones).shape
    (3, 1280)
    """

    _items = staticmethod(as_items)

    medium: Medium
    _: KW_ONLY
    batch_size: int | str = "auto"
    n_jobs: int | None = None
    cache: str | os.PathLike[str] | EmbeddingStore | None = "auto"
    on_error: str = "raise"
    verbose: int = 0

    def _spec(self) -> Medium:
        owner = type(self).__name__
        if not is_medium(self.medium):
            expected = "a Medium such as Sound() or Text()"
            raise parameter_error(owner, "medium", expected, self.medium)
        check_parameters(owner, self.batch_size, self.n_jobs, self.on_error, "auto")
        return self.medium
