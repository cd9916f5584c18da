"""Preprocessing: timm's evaluation transform, from RGB pixels to a network's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from featuretl.exceptions import ImageError

if TYPE_CHECKING:
    import torch

MAX_RESIZED_PIXELS = 2**26

# PyTorch resizes these as 8-bit integers, several times as fast as Pillow. With the same order of
# passes, the two differ by one level of 255 in fewer than 2% of the pixels.
_FAST_INTERPOLATIONS = ("bilinear", "bicubic")
_FAST_CROPS = ("center", "squash")
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop and normalise images as timm does in evaluation."""

    input_size: tuple[int, int, int]  # (3, height, width) of the network's input
    interpolation: str  # "bicubic", "bilinear" or "lanczos", with antialiasing
    crop_pct: float  # the image is resized to input_size / crop_pct before the crop
    crop_mode: str  # "center", "border" or "squash"
    mean: tuple[float, ...]  # per channel, for pixels in [0, 1]
    std: tuple[float, ...]
    # JPEGs are decoded at 1/2, 1/4 or 1/8 that keeps this many times the resized size; 0: in full.
    decode_ratio: int = 0

    @classmethod
    def of(cls, pretrained_cfg: dict[str, Any], **overrides: Any) -> Preprocessing:
        """Return the preprocessing in timm's configuration of a model."""
        from timm.data import resolve_data_config

        config: dict[str, Any] = {**resolve_data_config(pretrained_cfg=pretrained_cfg), **overrides}
        return cls(
            tuple(config["input_size"]),
            config["interpolation"],
            float(config["crop_pct"]),
            config["crop_mode"] or "center",
            _per_channel(config["mean"], config["input_size"][0]),
            _per_channel(config["std"], config["input_size"][0]),
        )

    def recipe(self) -> dict[str, Any]:
        """Return the part of a recipe that describes the preprocessing (JSON)."""
        implementation = "torch, passes as Pillow 13" if self._is_fast else "timm"
        facts = {
            name: list(value) if isinstance(value, tuple) else value  # as JSON gives it back
            for name, value in asdict(self).items()
            if value or name != "decode_ratio"
        }
        return {"implementation": implementation, **facts}

    @property
    def least_side(self) -> int:
        """The shorter side, in pixels, that decoding leaves a JPEG at least; 0: its own."""
        return self.decode_ratio * max(math.floor(n / self.crop_pct) for n in self.input_size[1:])

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize and crop pixels, uint8 (h, w, 3), to uint8 (3, height, width).

        A network of one channel gets the luminance of the pixels; one of other channels takes
        pixels with these channels. Raises ImageError for pixels of other channels, or if a long
        and thin image would be resized to over `MAX_RESIZED_PIXELS`.
        """
        pixels, resized = self._checked(pixels)
        height, width, _ = pixels.shape
        is_enlarged = resized[0] > height or resized[1] > width
        # PyTorch rounds many pixels differently in a bilinear enlargement.
        has_ties = self.interpolation == "bilinear" and is_enlarged
        if self._is_timms(resized) or has_ties:
            return self._by_timm(pixels)
        return self._resize_and_crop(pixels, resized)

    def _checked(self, pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the pixels in the network's channels, and the size to resize them to."""
        if self.input_size[0] == 1 and pixels.shape[2] == 3:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        height, width, n_channels = pixels.shape
        if n_channels != self.input_size[0]:
            raise ImageError(
                f"{n_channels} channels; expected {self.input_size[0]} (in_chans of the backbone)"
            )
        resized = self._resized(height, width)
        if self.crop_mode == "center" and math.prod(resized) > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels are too long and thin: with the short side resized to "
                f"fit {self.input_size[1]} it would have over {MAX_RESIZED_PIXELS} pixels; crop it"
            )
        return pixels, resized

    def _is_timms(self, resized: tuple[int, int]) -> bool:
        """Return whether only timm's own transform makes this size, or pads it."""
        return not self._is_fast or any(
            part < whole for part, whole in zip(resized, self.input_size[1:], strict=True)
        )

    def _by_timm(self, pixels: np.ndarray) -> torch.Tensor:
        import torch

        height, width, n_channels = pixels.shape
        try:
            if n_channels == 3:
                return self._timm_transform(Image.fromarray(pixels))
            channels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
            return torch.cat([self._timm_transform(Image.fromarray(one)) for one in channels])
        except ValueError as error:  # one side would be resized to 0 pixels
            raise ImageError(f"{width} x {height} pixels are too long and thin") from error

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return the crop in pixels of the image, (left, top, right, bottom).

        With ``crop_mode="border"`` it may exceed the image.
        """
        resized = self._resized(height, width)
        seen = self.input_size[1:]
        top, left = (round((whole - part) / 2) for whole, part in zip(resized, seen, strict=True))
        y, x = height / resized[0], width / resized[1]
        return left * x, top * y, (left + seen[1]) * x, (top + seen[0]) * y

    def for_crops(self) -> Preprocessing:
        """Return the preprocessing of crops of an image, each of which fills the input."""
        return replace(self, crop_pct=1.0, crop_mode="squash")

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Return `batch`, uint8 (n, 3, height, width), normalised to float32 on its device."""
        import torch

        from featuretl.backbones.devices import to_device

        n, channels, height, width = batch.shape
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        # Rows of interleaved colours make the innermost loop long.
        rows = batch.to(torch.float32).permute(0, 2, 3, 1).reshape(n * height, width * channels)
        scale, shift = (
            to_device(values.repeat(width), batch.device)
            for values in (1 / (255 * std), -mean / std)
        )
        rows = torch.addcmul(shift, rows, scale)
        return rows.view(n, height, width, channels).permute(0, 3, 1, 2)

    @property
    def _is_fast(self) -> bool:
        return self.interpolation in _FAST_INTERPOLATIONS and self.crop_mode in _FAST_CROPS

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the whole image before the crop, as timm rounds them."""
        target = [math.floor(side / self.crop_pct) for side in self.input_size[1:]]
        if self.crop_mode == "squash":
            return target[0], target[1]
        if target[0] == target[1] and self.crop_mode == "center":
            short, long = target[0], int(target[0] * max(height, width) / min(height, width))
            return (short, long) if height <= width else (long, short)
        fit = max if self.crop_mode == "border" else min
        ratio = fit(height / target[0], width / target[1])
        return round(height / ratio), round(width / ratio)

    def _resize_and_crop(self, pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        import torch

        writable = np.require(pixels, requirements=["C", "W"])  # as from_numpy expects
        x = torch.from_numpy(writable)[None].permute(0, 3, 1, 2)
        for step in _passes((x.shape[2], x.shape[3]), size):
            x = torch.nn.functional.interpolate(x, step, mode=self.interpolation, antialias=True)
        height, width = self.input_size[1:]
        top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
        return x[0, :, top : top + height, left : left + width]

    @cached_property
    def _timm_transform(self) -> Callable[[Image.Image], torch.Tensor]:
        from timm.data import create_transform

        config = asdict(self)
        del config["decode_ratio"]
        return create_transform(**config, is_training=False, normalize=False)


class PillowPreprocessing(Preprocessing):
    """The same preprocessing in NumPy and Pillow, as timm does it, with arrays in and out."""

    @classmethod
    def of_recipe(cls, recipe: dict[str, Any]) -> PillowPreprocessing:
        """Return the preprocessing that `Preprocessing.recipe` describes."""
        known: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value := recipe[field.name], list) else value
            for field in fields(cls)
            if field.name in recipe
        }
        return cls(**known)

    def __call__(self, pixels: np.ndarray) -> Any:
        """Resize and crop pixels, uint8 (h, w, 3), to uint8 (3, height, width)."""
        pixels, resized = self._checked(pixels)
        if self._is_timms(resized):
            return self._by_timm(pixels).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        whole = np.asarray(image.resize(resized[::-1], _RESAMPLING[self.interpolation]))
        height, width = self.input_size[1:]
        top, left = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
        crop = whole[top : top + height, left : left + width]
        return crop.reshape(height, width, -1).transpose(2, 0, 1)

    def normalise(self, batch: Any) -> Any:
        """Return `batch`, uint8 (n, 3, height, width), normalised to float32."""
        mean, std = (
            np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std)
        )
        return batch * (1 / (255 * std)) + -mean / std


def _per_channel(values: Sequence[float], n_channels: int) -> tuple[float, ...]:
    """Return values of three channels for another number of channels, as timm repeats weights."""
    if n_channels == 1:
        return (float(sum(values) / len(values)),)
    return tuple(float(values[channel % len(values)]) for channel in range(n_channels))


def _passes(size: tuple[int, int], target: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes (height, width) after each pass of resizing, in Pillow's order."""
    # Values are rounded to 8 bits between passes, so the order changes up to a quarter of the
    # pixels by some levels. PyTorch resizes rows first, as Pillow does, but Pillow 13 begins with
    # the columns if over twice as many rows as columns are removed.
    (height, width), (rows, columns) = size, target
    if size == target:
        return []
    if height - rows > max(2 * (width - columns), 0) and width != columns:
        return [(rows, width), target]
    return [target]
