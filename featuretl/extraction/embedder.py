"""Pretrained embeddings as scikit-learn transformers: what they share, and ImageEmbedder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from featuretl.backbones.spec import PRE_LOGITS, BackboneSpec, Layer
from featuretl.exceptions import FeatureTLWarning
from featuretl.extraction.extraction import (
    Extraction,
    check_parameters,
    describe_failures,
    extract,
    recipe_of,
)
from featuretl.extraction.progress import embedding_bar
from featuretl.images.inputs import as_images
from featuretl.store.keys import Recipe
from featuretl.store.store import EmbeddingStore, resolve_store


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A stateless transformer from one column, of images or of items, to embeddings.

    A subclass says what they are called (`_what`), which collections of them it accepts (`_items`),
    what embeds them (`_spec`, with the parameters checked) and which parameters of `extract` it
    has besides those that every embedder has (`_options`).
    """

    _what = "items"
    _options: tuple[str, ...] = ()
    _items: Callable[[Any, str], Sequence[Any]]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of `X`; nothing is trained and nothing is opened.

        Parameters
        ----------
        X : sequence of n images or items
            See `transform`.
        y : ignored

        Returns
        -------
        self : ImageEmbedder or MediaEmbedder
        """
        self._spec()
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
            A list, 1-D object or str array, Series or one-column frame. Images are paths, bytes of
            image files, PIL images, or uint8 arrays (h, w), (h, w, 3) or (h, w, 4); or one uint8
            array (n, h, w, 3). Items are what the medium accepts.

        Returns
        -------
        embeddings : ndarray of shape (n, n_features), float32
            Row i belongs to image or item i.

        Raises
        ------
        ImageError
            With ``on_error="raise"``, if an image cannot be read; for items an ItemError.
        BackboneError, ParameterError, InputError, StoreError
            If something cannot be used as it is.
        """
        extraction = self._extract(X, self.on_error)
        if extraction.failures:
            n = len(extraction.images)
            message = describe_failures(extraction.failures, n, what=self._what)
            warnings.warn(message, FeatureTLWarning, stacklevel=2)
        return extraction.to_numpy()

    def extract(self, X: Any) -> Extraction:
        """Embed as `transform` does, and name every bad image or item, whatever `on_error` says.

        Parameters
        ----------
        X : sequence of n images or items
            See `transform`.

        Returns
        -------
        Extraction
            `to_numpy()` returns the embeddings; `failures` are the bad images or items; `recipe` is
            what made the embeddings.
        """
        return self._extract(X, "nan")

    def recipe(self) -> Recipe:
        """Return what makes the embeddings (JSON); see `featuretl.store.keys`.

        The backbone is loaded only if the cache does not know it.
        """
        return recipe_of(self._spec(), resolve_store(self.cache, type(self).__name__))

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
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags


class ImageEmbedder(Embedder):
    """Turn images into embeddings of a pretrained network, each computed once.

    Stateless: `transform` needs no `fit`. Embeddings are kept in a store on disk, keyed by the
    content of the image and everything that shapes its embedding, and shared by all clones, folds
    and processes; a grid search embeds every image once. Weights are loaded when an image is not
    in the store, and never pickled.

    Parameters
    ----------
    backbone : str, default="tf_efficientnet_lite0"
        Any timm model name. The default's weights are installed with featuretl.
    weights : {"auto", "random"} or path, default="auto"
        Packaged or from timm's hub; or a local file.
    layers : "pre_logits", int, str, or a list of these, default="pre_logits"
        What to embed: the network's output before its classifier, or layers by number or name,
        concatenated, from one forward pass.
    pooling : {"auto", "avg", "max", "cls", "avg+max", "cls+avg", "gem", "flatten"}, default="auto"
        How positions become one vector. These first four are explained in `load_backbone`.
    normalize : bool, default=False
        Scale every embedding to length 1.
    precision : {"auto", "float32", "bfloat16", "int8"}, default="auto"
        Precision of the computation; "auto" is "float32", the others give other embeddings, see
        `load_backbone`.
    views : int, "flip", "ten-crop" or a grid such as "3x3", default=1
        Views of each image, embedded side by side, the image itself first: its mirror image, random
        crops, or tiles of images much larger than the network's input; see `load_backbone`. What a
        head learns from them is for `ViewsClassifier` and `ViewPooling` to say.
    device : str, torch.device or list of these, default="auto"
        "auto" is every GPU that there is, else the CPU; "cuda" every GPU.
    runtime : {"auto", "torch", "onnx", "openvino", "compile"}, default="auto"
        Inference runtime; "auto" picks the fastest one that agrees with eager PyTorch, see `extract`.
    batch_size : int or "auto", default="auto"
        Images per forward pass; "auto" grows while that is faster.
    n_jobs : int, optional
        Threads, each of which takes batches from the files through the network; None or -1 is one
        per usable core.
    cache : "auto", path, EmbeddingStore or None, default="auto"
        Where embeddings are kept: by default the folder that the environment variable
        ``FEATURETL_CACHE`` names, else the user's cache directory; None keeps nothing.
    on_error : {"raise", "nan"}, default="raise"
        A bad image is an ImageError that names it, once all others are embedded and kept; or a row
        of NaN and a warning that names it.
    decode_timeout : float, optional
        Seconds that decoding an image may take. Given, images are decoded in child processes: one
        that crashes the decoder, or takes longer, is a bad image like any other. For images from
        strangers; None decodes in this process and is faster.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        1: images are one column. Set by `fit`.
    feature_names_in_ : ndarray of shape (1,), object
        The column's name, if `fit` was given a frame.

    See Also
    --------
    load_image_folder : List a folder of images whose subfolders are classes.
    extract : The same with statistics, failures and memory-mapped results.

    Notes
    -----
    Unlike scikit-learn, ``n_jobs=None`` means all usable cores: threads share the network and
    the images.

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

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        *,
        weights: str | os.PathLike[str] = "auto",
        layers: Layer | Sequence[Layer] = PRE_LOGITS,
        pooling: str = "auto",
        normalize: bool = False,
        precision: str = "auto",
        views: int | str = 1,
        device: Any = "auto",
        runtime: str = "auto",
        batch_size: int | str = "auto",
        n_jobs: int | None = None,
        cache: str | os.PathLike[str] | EmbeddingStore | None = "auto",
        on_error: str = "raise",
        decode_timeout: float | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.pooling = pooling
        self.normalize = normalize
        self.precision = precision
        self.views = views
        self.device = device
        self.runtime = runtime
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache = cache
        self.on_error = on_error
        self.decode_timeout = decode_timeout
        self.verbose = verbose

    def _spec(self) -> BackboneSpec:
        owner = type(self).__name__
        check_parameters(
            owner, self.batch_size, self.n_jobs, self.on_error, self.runtime, self.decode_timeout
        )
        names = ("weights", "layers", "pooling", "normalize", "precision", "views")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return BackboneSpec.of(owner, self.backbone, **given)
