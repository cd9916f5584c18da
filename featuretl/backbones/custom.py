"""Backbones of the caller's own: any torch module, behind the interface of a timm model."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from featuretl._core.parameters import check_int, parameter_error
from featuretl._core.text import did_you_mean, printable, reason_of
from featuretl.backbones.blocks import Block
from featuretl.backbones.weights import Network, tensors_digest
from featuretl.exceptions import BackboneError

_OWNER = "Backbone.of"
_ATTRIBUTES = ("pooler_output", "image_embeds", "last_hidden_state")  # of Hugging Face's outputs


class CustomNetwork:
    """A torch module with its preprocessing, on the CPU; `BackboneSpec.network` of a backbone."""

    def __init__(
        self,
        module: nn.Module,
        preprocessing: Callable[[Any], Any],
        name: str,
        blocks: Sequence[str],
        n_prefix_tokens: int,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise parameter_error(_OWNER, "module", "a torch.nn.Module", module)
        if not isinstance(name, str) or not name:
            raise parameter_error(_OWNER, "name", "a name for messages and the cache", name)
        check_int(_OWNER, "n_prefix_tokens", n_prefix_tokens, 0)
        own = copy.deepcopy(module).eval().requires_grad_(False).to("cpu")
        self.name = name
        self.preprocessing = CustomPreprocessing(preprocessing, name)
        self._model = TimmInterface(own, self.preprocessing.input_size, n_prefix_tokens)
        self._model.check(self.preprocessing(_example())[None])
        self.tensors = tensors_digest(self._model)
        self.blocks = tuple(blocks)
        for block in self.blocks:
            if block not in dict(own.named_modules()):
                expected = f"names of modules of the network{did_you_mean(block, self._names)}"
                raise parameter_error(_OWNER, "blocks", expected, block)

    @property
    def _names(self) -> list[str]:
        return [str(info["module"]) for info in self._model.feature_info]

    def on(self, device: torch.device) -> Network:
        """Return the network on a device."""
        model = self._model if device.type == "cpu" else copy.deepcopy(self._model).to(device)
        recipe = {"name": self.name, "tensors": self.tensors}
        return Network(model.to(memory_format=torch.channels_last), [], recipe)

    def find_blocks(self, name: str) -> tuple[Block, ...]:
        """Return the blocks that the caller named. Raises BackboneError if there are none."""
        if not self.blocks:
            raise BackboneError(
                f"The backbone {name!r} has no blocks; name its modules from input to output as "
                "blocks of Backbone.of, or train the whole network with n_blocks='all'."
            )
        parameters = [key for key, _ in self._model.named_parameters()]
        paths = [f"{_MODULE}.{block}" for block in self.blocks]
        return tuple(
            Block(path, frozenset(key for key in parameters if key.startswith(f"{path}.")))
            for path in paths
        )


_MODULE = "module"


class TimmInterface(nn.Module):
    """A module with the attributes and methods of a timm model that featuretl uses.

    The module may return embeddings (n, d), a map (n, c, h, w), tokens (n, t, d), or the output of
    a Hugging Face model. Its layers are all its modules, by name.
    """

    output_fmt = "NCHW"

    def __init__(
        self, module: nn.Module, input_size: tuple[int, int, int], n_prefix_tokens: int
    ) -> None:
        super().__init__()
        self.module = module
        self.pretrained_cfg = {"input_size": input_size}
        self.num_prefix_tokens = n_prefix_tokens
        self.global_pool = "token" if n_prefix_tokens else "avg"
        self.feature_info = [{"module": name} for name, _ in module.named_modules() if name]
        self._attribute: str | None = None  # of the output, which holds the embeddings
        self._n_dims = 2

    def get_classifier(self) -> nn.Module:
        """Return a module without parameters: the network has no classifier."""
        return nn.Identity()

    def check(self, batch: torch.Tensor) -> None:
        """Record what the module returns. Raises BackboneError if that gives no embeddings."""
        try:
            with torch.inference_mode():
                output = self.module(torch.cat([batch, batch]))
        except Exception as error:  # the caller's code may raise any exception
            raise BackboneError(
                f"The module of Backbone.of cannot embed a preprocessed image, float32 "
                f"{tuple(batch.shape)} ({type(error).__name__}: {reason_of(error)})."
            ) from error
        held = [name for name in _ATTRIBUTES if getattr(output, name, None) is not None]
        self._attribute = held[0] if held else None
        found = self._embeddings(output)
        if not isinstance(found, torch.Tensor) or found.ndim not in (2, 3, 4) or len(found) != 2:
            is_tensor = isinstance(found, torch.Tensor)
            got = f"shape {tuple(found.shape)}" if is_tensor else type(output).__name__
            raise BackboneError(
                "The module of Backbone.of must return embeddings (n, d), a map (n, c, h, w) or "
                f"tokens (n, t, d) for a batch of n images; got {got} for n = 2."
            )
        _check_channels_first(found, "The module of Backbone.of")
        self._n_dims = found.ndim

    def forward_features(self, x: torch.Tensor) -> Any:
        """Return the module's output."""
        return self.module(x)

    def forward_head(self, x: Any, pre_logits: bool = True) -> torch.Tensor:
        """Return the embeddings (n, d) in the module's output; maps and tokens are averaged."""
        x = self._embeddings(x)
        if self._n_dims == 4:
            return x.mean((2, 3))
        if self._n_dims == 3:
            return x[:, 0] if self.num_prefix_tokens else x.mean(1)
        return x

    def _embeddings(self, output: Any) -> Any:
        return getattr(output, self._attribute) if self._attribute else output

    def forward_intermediates(
        self, x: torch.Tensor, indices: list[int], return_prefix_tokens: bool = False
    ) -> tuple[Any, list[Any]]:
        """Return the module's output, and positions (n, c, k) of the modules at `indices`."""
        names = [str(self.feature_info[index]["module"]) for index in indices]
        found: dict[str, Any] = {}
        thread = threading.get_ident()  # other threads may run the same module now
        hooks = []
        for name in names:

            def keep(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                if threading.get_ident() == thread:
                    found[name] = output

            hooks.append(self.module.get_submodule(name).register_forward_hook(keep))
        try:
            final = self.module(x)
        finally:
            for hook in hooks:
                hook.remove()
        return final, [self._positions(name, found.get(name)) for name in names]

    def _positions(self, name: str, output: Any) -> Any:
        """Return a layer's positions (n, c, k), and its prefix tokens if it has any."""
        x = _tensor_of(output)
        if x is None or x.ndim not in (2, 3, 4):
            raise BackboneError(
                f"The layer {printable(name)!r} of the backbone gives no tensor of embeddings, "
                "positions or tokens; choose another layer."
            )
        _check_channels_first(x, f"The layer {printable(name)!r}")
        if x.ndim != 3:
            return x if x.ndim == 4 else x[..., None]
        prefix = self.num_prefix_tokens
        patches = x[:, prefix:].transpose(1, 2)
        return (patches, x[:, :prefix]) if prefix else patches


def _tensor_of(output: Any) -> torch.Tensor | None:
    """Return the tensor in a module's output: the output itself, or the first of a tuple."""
    output = getattr(output, "last_hidden_state", output)
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, torch.Tensor) else None


def _check_channels_first(x: torch.Tensor, what: str) -> None:
    if x.ndim == 4 and x.shape[1] == x.shape[2] != x.shape[3]:
        raise BackboneError(
            f"{what} returns a map of shape {tuple(x.shape)}, which looks channels last; wrap the "
            "module in one that permutes its output to (n, c, h, w)."
        )


def _example() -> np.ndarray:
    """Return the pixels of an image, uint8 (h, w, 3), to try a network with."""
    return np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


class CustomPreprocessing:
    """The caller's own transform from a PIL image to the network's input.

    `transform` maps a PIL image to a float tensor (3, height, width), as torchvision's and
    open_clip's transforms do, or is an image processor of Hugging Face.
    """

    least_side = 0  # files are decoded in full

    def __init__(self, transform: Callable[[Any], Any], name: str) -> None:
        processor = getattr(transform, "image_processor", transform)  # of images and text
        if not callable(processor):
            expected = "a callable from a PIL image to a float tensor (3, height, width)"
            raise parameter_error(_OWNER, "preprocessing", expected, transform)
        self._transform: Any = processor
        self._name = name
        self.input_size: Any = None
        self.input_size = tuple(self(_example()).shape)

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """Return the network's input, float32 (3, height, width), of pixels, uint8 (h, w, 3)."""
        image = Image.fromarray(pixels)
        try:
            if hasattr(self._transform, "model_input_names"):  # a Hugging Face image processor
                x = self._transform(images=image, return_tensors="pt")["pixel_values"][0]
            else:
                x = self._transform(image)
        except Exception as error:  # the caller's code may raise any exception
            raise self._error(f"{type(error).__name__}: {reason_of(error)}") from error
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim != 3:
            kind = (
                f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
            )
            raise self._error(f"it gave {kind}")
        if self.input_size not in (None, tuple(x.shape)):
            raise self._error(f"it gave {tuple(x.shape)}, and {self.input_size} for another image")
        return x.to(torch.float32)

    def _error(self, reason: str) -> BackboneError:
        return BackboneError(
            f"The preprocessing of the backbone {self._name!r} must turn every PIL image into a "
            f"float tensor of one shape, (3, height, width), but {reason}."
        )

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the batch unchanged: the transform has normalised it."""
        return batch

    def recipe(self) -> dict[str, Any]:
        """Return the part of a recipe that describes the preprocessing (JSON): its name."""
        return {"implementation": "custom", "name": self._name}

    def for_crops(self) -> CustomPreprocessing:
        """Return the preprocessing of crops of an image: the same."""
        return self

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the crop in pixels of the image, (left, top, right, bottom).

        It is found by the values that two ramps, from 0 to 255 across the image, have at the corners
        of the network's input.
        """
        x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        black, white, across, down = (
            self(np.repeat(ramp.round().astype(np.uint8)[..., None], 3, axis=2))[0]
            for ramp in (np.zeros_like(x), np.full_like(x, 255), x, y)
        )
        columns = ((across - black) / (white - black)).mean(0) * width
        rows = ((down - black) / (white - black)).mean(1) * height
        left, right, top, bottom = (float(v) for v in (*columns[[0, -1]], *rows[[0, -1]]))
        return left, top, right, bottom
