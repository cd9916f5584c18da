"""Augmentation: what happens to an image before it is preprocessed, drawn from a seeded generator."""

from __future__ import annotations

import dataclasses
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance

from featuretl.backbones.preprocess import Preprocessing


@dataclass(frozen=True)
class Strength:
    """How far augmentation goes.

    Attributes
    ----------
    area : tuple of float
        Least and largest share of the image that a crop keeps.
    ratio : float >= 1
        A crop is at most this much wider or higher than the image's own shape.
    colour : float
        Brightness, contrast and saturation are multiplied by 1 - colour to 1 + colour.
    views : int
        Views of an image that a cached trunk keeps: the image, its mirror image, then crops.
    noise : float
        Standard deviation of the factors on activations of a cached trunk (mean 1): augmentation
        in feature space.
    """

    area: tuple[float, float]
    ratio: float
    colour: float
    views: int
    noise: float


STRENGTHS = {
    "none": Strength((1.0, 1.0), 1.0, 0.0, views=1, noise=0.0),
    "light": Strength((0.7, 1.0), 1.1, 0.0, views=2, noise=0.0),
    "strong": Strength((0.35, 1.0), 4 / 3, 0.3, views=6, noise=0.1),
}


@dataclass(frozen=True)
class View:
    """One way of looking at an image.

    Attributes
    ----------
    box : tuple of float or None
        Left, top, right and bottom of a crop as shares of width and height; None for the whole
        image, preprocessed as in evaluation.
    mirrored : bool
        Left and right exchanged.
    colour : tuple of float
        Factors of brightness, contrast and saturation.
    """

    box: tuple[float, float, float, float] | None = None
    mirrored: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
        """Return what the network sees, uint8 (3, height, width), of pixels (h, w, 3), uint8."""
        if self.box is not None:
            height, width = pixels.shape[:2]
            left, top, right, bottom = self.box
            x, y = int(left * width), int(top * height)
            pixels = pixels[
                y : max(y + 1, round(bottom * height)), x : max(x + 1, round(right * width))
            ]
            # The crop becomes the whole input; its own shape is part of the augmentation.
            preprocessing = dataclasses.replace(preprocessing, crop_pct=1.0, crop_mode="squash")
        if self.mirrored:
            pixels = pixels[:, ::-1]
        if self.colour != (1.0, 1.0, 1.0):
            image = Image.fromarray(pixels)
            kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
            for kind, factor in zip(kinds, self.colour, strict=True):
                image = kind(image).enhance(factor)
            pixels = np.array(image)
        return preprocessing(np.ascontiguousarray(pixels))


def draw(strength: Strength, rng: np.random.Generator) -> View:
    """Draw a view: a crop, mirrored half of the time, its colours changed."""
    mirrored = bool(rng.integers(2))
    share = math.sqrt(rng.uniform(*strength.area))
    shape = math.exp(rng.uniform(-1, 1) * math.log(strength.ratio) / 2)
    width, height = min(share * shape, 1.0), min(share / shape, 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    low, high = 1 - strength.colour, 1 + strength.colour
    brightness, contrast, saturation = rng.uniform(low, high, 3).tolist()
    box = (left, top, left + width, top + height)
    return View(box, mirrored, (brightness, contrast, saturation))


def cached_view(number: int, strength: Strength, pixels: np.ndarray) -> View:
    """Return view `number` of an image: itself, its mirror image, then crops by its content."""
    if number < 2:
        return View(mirrored=number == 1)
    content = zlib.crc32(pixels.tobytes())
    return draw(strength, np.random.default_rng([number, content]))


def view_recipe(number: int, strength: Strength) -> dict[str, Any]:
    """Return the part of a trunk's recipe that `cached_view` is (JSON)."""
    if number < 2:
        return {"number": number}
    crop = {"area": list(strength.area), "ratio": strength.ratio, "colour": strength.colour}
    return {"number": number, **crop, "version": 1}
