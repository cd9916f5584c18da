"""Backbone: a frozen timm network with its preprocessing and pooling."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featuretl.backbones.blocks import Block, check_cut, cut, find_blocks
from featuretl.backbones.devices import to_device, usable_device
from featuretl.backbones.eager import Runtime, TorchRuntime
from featuretl.backbones.embedding import Embedding, has_class_token, layer_index
from featuretl.backbones.spec import PRE_LOGITS, QUANTIZATION, BackboneSpec, Layer
from featuretl.backbones.views import n_views, prepare, split_views, views_recipe
from featuretl.backbones.weights import load_network, preprocessing_of
from featuretl.exceptions import BackboneError


def load_backbone(
    name: str = "tf_efficientnet_lite0",
    *,
    weights: str | os.PathLike[str] = "auto",
    layers: Layer | Sequence[Layer] = PRE_LOGITS,
    pooling: str = "auto",
    normalize: bool = False,
    precision: str = "auto",
    views: int | str = 1,
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    in_chans: int = 3,
    decode: str = "full",
    device: str = "auto",
) -> Backbone:
    """Load a pretrained backbone.

    Parameters
    ----------
    name : str, default="tf_efficientnet_lite0"
        Any name that ``timm.create_model`` accepts: a timm model with or without a pretrained tag
        (see `list_backbones`), ``"timm/model"`` or ``"hf-hub:organisation/model@revision"`` on the
        Hugging Face hub, or ``"local-dir:folder"`` as ``timm.models.save_for_hf`` writes it.
    weights : {"auto", "random"} or path, default="auto"
        "auto" uses packaged weights if available, or timm's, downloaded from its hub once. A path
        names a local ``.safetensors`` file or a PyTorch file that holds only tensors; a classifier
        with other classes in it is ignored. "random" is for tests and ablations (seed 0).
    layers : "pre_logits", int, str, or a list of these, default="pre_logits"
        Outputs of one forward pass, concatenated in this order: the network's output before its
        classifier, or a layer by its number (negative from the end) or name in
        `Backbone.layer_names`, as timm's ``forward_intermediates`` counts them.
    pooling : str, default="auto"
        "auto", "avg", "max", "cls", "avg+max", "cls+avg", "gem", "flatten" or "grid".
        "auto" is the model's own pooling: for "pre_logits" timm's ``forward_head(..,
        pre_logits=True)``, for a layer the class token if the model classifies with it, or the
        average. The others apply to ``forward_features`` and to layers, without register tokens.
        "gem" is the generalised mean with p = 3 (Radenovic et al., 2018); "flatten" concatenates
        all positions; "grid" keeps the positions of a map or of the patch tokens: `extract` and
        `ImageEmbedder` then return (n, h, w, d).
    normalize : bool, default=False
        Scale every embedding to length 1.
    precision : {"auto", "float32", "bfloat16", "int8"}, default="auto"
        Precision of the computation; embeddings are float32. "auto" is "float32": the others give
        other embeddings (another recipe). "bfloat16" needs a processor or GPU that supports it and
        is much slower elsewhere; on the CPU OpenVINO computes it, too. "int8" runs in ONNX Runtime
        on the CPU, calibrated on photographs that come with scikit-learn.
    views : int, "flip", "ten-crop" or a grid such as "3x3", default=1
        Views of each image, with their embeddings concatenated, the image itself first. "flip" adds
        its mirror image; an int n adds n - 2 light random crops as well, seeded by the image's
        content; "ten-crop" adds the mirror image, and the four corners with theirs, as AlexNet was
        tested (Krizhevsky et al., 2012); a grid adds rows x columns square tiles that cover the
        image, for images much larger than the network's input. `featuretl.heads.ViewsClassifier`
        and `featuretl.heads.ViewPooling` use them.
    image_size : int or (height, width), optional
        Size in pixels of the network's input; by default that of the network's configuration.
        Convolutional networks take any size; the position embeddings of transformers are
        interpolated, as timm's ``set_input_size`` does.
    crop_pct : float in (0, 1], optional
        Share of the shorter side of an image that the center crop keeps; by default that of the
        network's configuration.
    in_chans : int, default=3
        Number of channels of the images. 1 takes the luminance of any image; other numbers need
        arrays uint8 (h, w, in_chans), or TIFF files of uint8 channels and the extra
        ``featuretl[tiff]``. timm's ``adapt_input_conv`` adapts the weights of RGB.
    decode : {"full", "reduced"}, default="full"
        "reduced" decodes large JPEG files at 1/2, 1/4 or 1/8 of their size, the smallest whose
        shorter side is at least three times that of the resized image: faster, with slightly other
        embeddings (another recipe). It leaves other formats, crops, arrays, and images of more
        than two views as they are.
    device : str, default="auto"
        A torch device; "auto" is CUDA if available, or the CPU.

    Returns
    -------
    backbone : Backbone
        The last two networks loaded stay in memory and are shared.

    Raises
    ------
    ParameterError
        If a parameter has an invalid value.
    BackboneError
        If the name is unknown, the weights are not available or do not fit, or the model has no
        such layer or token.

    Examples
    --------
    >>> backbone = load_backbone()
    >>> backbone
    Backbone('tf_efficientnet_lite0', n_features=1280)
    >>> pixels = np.full((480, 640, 3), 128, np.uint8)
    >>> backbone.embed([backbone.prepare(pixels)]).shape
    (1, 1280)
    """
    spec = BackboneSpec.of(
        "load_backbone",
        name,
        weights=weights,
        layers=layers,
        pooling=pooling,
        normalize=normalize,
        precision=precision,
        views=views,
        image_size=image_size,
        crop_pct=crop_pct,
        in_chans=in_chans,
        decode=decode,
    )
    return load_spec(spec, device)


class Backbone:
    """A frozen network and its preprocessing; use `load_backbone` to load one.

    Attributes
    ----------
    spec : BackboneSpec
        Name, weights and output.
    device : torch.device
    preprocessing : Preprocessing
    model : torch.nn.Module
        timm's model, in evaluation mode, without gradients.
    """

    def __init__(self, spec: BackboneSpec, device: torch.device) -> None:
        self.spec = spec
        self.device = device
        self._network = load_network(spec, device)
        self.model = self._network.model
        self.preprocessing = preprocessing_of(spec, self.model)
        names = self.layer_names
        self._indices = [layer_index(layer, names, spec.name) for layer in spec.layers]
        if "cls" in spec.pooling and not has_class_token(self.model):
            raise BackboneError(
                f"pooling={spec.pooling!r} needs a class token, but the backbone {spec.name!r} has "
                "no class token; use 'auto', 'avg' or 'max'."
            )

    @classmethod
    def of(
        cls,
        module: torch.nn.Module,
        preprocessing: Callable[[Any], Any],
        name: str,
        *,
        blocks: Sequence[str] = (),
        n_prefix_tokens: int = 0,
        device: str = "auto",
        **output: Any,
    ) -> Backbone:
        """Make a backbone of a network of your own, for use wherever a backbone is accepted.

        Parameters
        ----------
        module : torch.nn.Module
            Any module from a batch of images to embeddings (n, d), a map (n, c, h, w) or tokens
            (n, t, d), or a vision model of Hugging Face. It is copied, in evaluation mode.
        preprocessing : callable or Hugging Face image processor
            From a PIL image (RGB) to the module's input, a float tensor (3, height, width): for
            example ``weights.transforms()`` of torchvision, or open_clip's transform.
        name : str
            Name for messages and for the cache. Embeddings are cached under the name and the
            tensors of the module: give another name if the module computes something else with the
            same tensors, or if `preprocessing` changes.
        blocks : sequence of str, default=()
            Names of modules from input to output, of which fine-tuning trains the last ones.
        n_prefix_tokens : int, default=0
            Number of tokens before the patch tokens, if the module returns tokens; the first one is
            the class token.
        device : str, default="auto"
            A torch device; "auto" is CUDA if available, or the CPU.
        **output
            `layers` (names of any modules), `pooling`, `normalize`, `precision` and `views`, as in
            `load_backbone`. With "auto" pooling maps and tokens are averaged, the class token or
            the ``pooler_output`` is used if there is one, and embeddings stay as they are.

        Returns
        -------
        backbone : Backbone
            A pickle of it holds the module and the preprocessing.

        Raises
        ------
        ParameterError
            If a parameter has an invalid value.
        BackboneError
            If the module does not give embeddings for a preprocessed photograph.

        Examples
        --------
        >>> import torchvision
        >>> weights = torchvision.models.ResNet18_Weights.DEFAULT
        >>> module = torchvision.models.resnet18(weights=None)  # or weights=weights
        >>> module.fc = torch.nn.Identity()
        >>> backbone = Backbone.of(module, weights.transforms(), "my resnet18")
        >>> backbone
        Backbone('my resnet18', n_features=512)
        """
        from featuretl.backbones.custom import CustomNetwork

        network = CustomNetwork(module, preprocessing, name, blocks, n_prefix_tokens)
        return load_spec(BackboneSpec.of("Backbone.of", name, network=network, **output), device)

    @property
    def files(self) -> list[Path]:
        """Paths of the files that the network and its weights come from."""
        return self._network.files

    def __repr__(self) -> str:
        return f"Backbone({self.spec.name!r}, n_features={self.n_features})"

    def __reduce__(self) -> tuple[Any, ...]:
        return load_spec, (self.spec, str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self  # frozen

    @cached_property
    def n_features(self) -> int:
        """Number of features of an embedding."""
        batch = self._blank()
        try:
            return TorchRuntime(self.embedding)(batch).shape[1] * self.n_views
        except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
            if isinstance(error, BackboneError) or set(self._indices) == {None}:
                raise
            raise BackboneError(
                f"The backbone {self.spec.name!r} cannot give layers={self.spec.layers!r} with "
                f"pooling={self.spec.pooling!r} ({type(error).__name__} in timm's model); request "
                "one layer at a time, or layers='pre_logits'."
            ) from error

    @cached_property
    def grid(self) -> list[int]:
        """Height, width and number of features of the positions that pooling="grid" returns."""
        with torch.inference_mode():
            outputs = self.embedding.outputs(self._blank())
            return list(self.embedding.grid(outputs).shape[1:])

    def _blank(self) -> torch.Tensor:
        channels, height, width = self.preprocessing.input_size
        return self.batch([self.preprocessing(np.zeros((height, width, channels), np.uint8))])

    @property
    def n_views(self) -> int:
        """Number of views of each image."""
        return n_views(self.spec.views)

    @property
    def layer_names(self) -> list[str]:
        """timm's module names of the available layers, from input to output."""
        if not hasattr(self.model, "forward_intermediates"):
            return []
        return [str(info["module"]) for info in self.model.feature_info]

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Module names of the blocks, from input to output; see `featuretl.backbones.blocks`.

        Raises BackboneError for a model that does not define its blocks.
        """
        return tuple(block.name for block in self._blocks)

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        if self.spec.network is not None:
            return self.spec.network.find_blocks(self.spec.name)
        return find_blocks(self.model, self.spec.name)

    def cut(self, n_blocks: int) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
        """Split the network below its last `n_blocks` blocks; ``top(trunk(x))`` is "pre_logits".

        Both parts share the network's tensors. Raises BackboneError if it cannot be split there.
        """
        name = self.spec.name
        trunk, top = cut(self.model, name, self._blocks, n_blocks)
        generator = torch.Generator().manual_seed(0)
        example = torch.randn((2, *self.preprocessing.input_size), generator=generator)
        check_cut(self.model, trunk, top, example.to(self.device), name)
        return trunk, top

    @property
    def block_parameters(self) -> tuple[frozenset[str], ...]:
        """Parameter names of each block in `model`."""
        return tuple(block.parameters for block in self._blocks)

    @property
    def recipe(self) -> dict[str, Any]:
        """Part of a recipe that describes the backbone (JSON); see `featuretl.store.keys`."""
        names = self.layer_names if set(self._indices) != {None} else []
        layers = [PRE_LOGITS if index is None else names[index] for index in self._indices]
        views = {} if self.n_views == 1 else {"views": views_recipe(self.spec.views)}
        quantization = {"quantization": QUANTIZATION} if self.spec.precision == "int8" else {}
        return {
            "backbone": self._network.recipe,
            "preprocess": {**self.preprocessing.recipe(), **views},
            "output": {
                "layers": layers,
                "pooling": self.spec.pooling,
                "normalize": self.spec.normalize,
                "dtype": "float32",
                "n_features": self.n_features,
                **({"grid": self.grid} if self.spec.pooling == "grid" else {}),
            },
            "compute": {"precision": self.spec.precision, **quantization},
        }

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize and crop pixels, uint8 (h, w, 3), to uint8 (3, height, width).

        With several views the result is uint8 (views, 3, height, width). Raises ImageError for an
        image too long and thin to be resized.
        """
        return self.preparation(pixels)

    @property
    def preparation(self) -> Callable[[np.ndarray], torch.Tensor]:
        """`prepare` as a function that does not hold the network."""
        return partial(prepare, self.preprocessing, self.spec.views)

    def batch(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Normalise prepared images to float32 (n, 3, height, width) on the network's device.

        Several views of an image become consecutive rows, (n x views, 3, height, width).
        """
        inputs = split_views(inputs)
        batch = torch.stack([x.permute(1, 2, 0) for x in inputs]).permute(0, 3, 1, 2)
        return self.preprocessing.normalise(to_device(batch, self.device))

    def embed(self, inputs: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the embeddings, float32 (n, n_features), of prepared images."""
        return self.forward(self.batch(inputs)).reshape(len(inputs), -1)

    @cached_property
    def forward(self) -> Runtime:
        """Eager PyTorch from the network's input to embeddings, float32 (n, n_features).

        Raises BackboneError for int8, which only `extract` and `ImageEmbedder` support.
        """
        if self.spec.precision == "int8":
            raise BackboneError(
                "A Backbone runs in PyTorch, which does not support precision='int8' here; use "
                "extract or ImageEmbedder, or load it in 'float32'."
            )
        return TorchRuntime(self.embedding)

    @cached_property
    def embedding(self) -> Embedding:
        """Module from the network's input to embeddings; with precision="int8" it is float32."""
        return self.embedding_in(self.spec.precision)

    def embedding_in(self, precision: str) -> Embedding:
        """Return the `embedding` module in a precision."""
        # In a folded network the output of a convolution is that of its batch-norm.
        by_name = self.spec.network is not None and set(self._indices) != {None}
        model = self.model if by_name else self._network.folded
        if precision == "bfloat16":
            model = copy.deepcopy(model).to(torch.bfloat16)
        return Embedding(model, self._indices, self.spec.pooling, self.spec.normalize)


def load_spec(spec: BackboneSpec, device: str | torch.device = "auto") -> Backbone:
    """Load the backbone that a spec describes; the last two networks stay in memory."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Backbone(spec, usable_device("load_backbone", device))


def as_backbone(owner: str, backbone: Any, device: str = "auto") -> Any:
    """Return a Backbone unchanged, or load a name or spec; the last two loaded stay in memory."""
    if isinstance(backbone, str):
        backbone = BackboneSpec.of(owner, backbone)
    return _loaded(backbone, device) if isinstance(backbone, BackboneSpec) else backbone


_loaded = lru_cache(maxsize=2)(load_spec)
