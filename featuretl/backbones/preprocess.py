"""From RGB pixels to a network's input: timm's own evaluation transform, as a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from featuretl.exceptions import ImageError

if TYPE_CHECKING:
    import torch


MAX_RESIZED_PIXELS = 2**26


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalise as timm does in evaluation.

    Attributes
    ----------
    input_size : tuple of int
        (3, height, width) of the network's input.
    interpolation : str
        "bicubic", "bilinear" or "lanczos", with antialiasing.
    crop_pct : float
        The image is resized to ``input_size / crop_pct`` before the crop.
    crop_mode : str
        "center", "border" or "squash".
    mean, std : tuple of float
        Per channel, for pixels in [0, 1].
    """

    input_size: tuple[int, int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, pretrained_cfg: dict[str, Any], **overrides: Any) -> Preprocessing:
        """Return what timm's configuration of a model asks for."""
        from timm.data import resolve_data_config

        config: dict[str, Any] = {**resolve_data_config(pretrained_cfg=pretrained_cfg), **overrides}
        return cls(
            tuple(config["input_size"]),
            config["interpolation"],
            float(config["crop_pct"]),
            config["crop_mode"],
            tuple(map(float, config["mean"])),
            tuple(map(float, config["std"])),
        )

    def recipe(self) -> dict[str, Any]:
        """Return the part of a recipe that this is (JSON)."""
        return {"implementation": "timm", **asdict(self)}

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """Return the network's input, float32 (3, height, width), for pixels (h, w, 3), uint8.

        Raises
        ------
        ImageError
            If the image is so long and thin that it would be resized to over `MAX_RESIZED_PIXELS`.
        """
        height, width = pixels.shape[:2]
        scale = max(self.input_size[1:]) / self.crop_pct / min(height, width)
        if self.crop_mode == "center" and height * width * scale**2 > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are too long and thin: with the short side resized to "
                f"fit {self.input_size[1]} it would have over {MAX_RESIZED_PIXELS} pixels; crop it"
            )
        return self._transform(Image.fromarray(pixels))

    @cached_property
    def _transform(self) -> Callable[[Image.Image], torch.Tensor]:
        from timm.data import create_transform

        return create_transform(**asdict(self), is_training=False)
