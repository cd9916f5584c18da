"""Views of an image: the image itself, its mirror image, crops and tiles."""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance

from featuretl._core.parameters import is_word, parameter_error
from featuretl.backbones.preprocess import Preprocessing

if TYPE_CHECKING:
    import torch

MOST_VIEWS = 1024

# Left, top, right and bottom of a crop as fractions of width and height.
Box = tuple[float, float, float, float]

_CORNER = 0.875  # side of a corner crop as a fraction of the image's short side


@dataclass(frozen=True)
class Strength:
    """Strength of augmentation by random views."""

    area: tuple[float, float]  # smallest and largest fraction of the image in a crop
    ratio: float  # >= 1: largest factor by which a crop's aspect ratio differs from the image's
    colour: float  # brightness, contrast, saturation are multiplied by 1 - colour to 1 + colour
    views: int  # cached views of each image: itself, its mirror image, then crops
    noise: float  # standard deviation of random factors (mean 1) on cached activations


STRENGTHS = {
    "none": Strength((1.0, 1.0), 1.0, 0.0, views=1, noise=0.0),
    "light": Strength((0.7, 1.0), 1.1, 0.0, views=2, noise=0.0),
    "strong": Strength((0.35, 1.0), 4 / 3, 0.3, views=6, noise=0.1),
}


@dataclass(frozen=True)
class View:
    """One view of an image; without a box, the whole image preprocessed as in evaluation."""

    box: Box | None = None
    mirrored: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)  # brightness, contrast, saturation

    def __call__(self, pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
        """Return the view, uint8 (3, height, width), of pixels, uint8 (h, w, 3)."""
        if self.box is not None:
            height, width = pixels.shape[:2]
            left, top, right, bottom = self.box
            x, y = int(left * width), int(top * height)
            pixels = pixels[
                y : max(y + 1, round(bottom * height)), x : max(x + 1, round(right * width))
            ]
            # The crop is resized to the whole input: its aspect ratio is part of the augmentation.
            preprocessing = preprocessing.for_crops()
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
    """Draw a random view: a crop, mirrored with probability 1/2, with changed colours."""
    mirrored = bool(rng.integers(2))
    side = math.sqrt(rng.uniform(*strength.area))
    aspect = math.exp(rng.uniform(-1, 1) * math.log(strength.ratio) / 2)
    width, height = min(side * aspect, 1.0), min(side / aspect, 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    low, high = 1 - strength.colour, 1 + strength.colour
    brightness, contrast, saturation = rng.uniform(low, high, 3).tolist()
    box = (left, top, left + width, top + height)
    return View(box, mirrored, (brightness, contrast, saturation))


def cached_view(number: int, strength: Strength, pixels: np.ndarray) -> View:
    """Return view `number` of an image: itself, its mirror image, then crops seeded by content."""
    if number < 2:
        return View(mirrored=number == 1)
    content = zlib.crc32(pixels.tobytes())
    return draw(strength, np.random.default_rng([number, content]))


def view_recipe(number: int, strength: Strength) -> dict[str, Any]:
    """Return the part of a trunk's recipe that identifies `cached_view` (JSON)."""
    if number < 2:
        return {"number": number}
    crop = {"area": list(strength.area), "ratio": strength.ratio, "colour": strength.colour}
    return {"number": number, **crop, "version": 1}


def check_views(owner: str, views: int | str) -> int | str:
    """Return the parameter `views` of `owner`, with 2 for "flip". Raises ParameterError."""
    if is_word(views, "flip"):
        return 2
    if isinstance(views, np.integer):
        views = int(views)
    is_int = isinstance(views, int) and not isinstance(views, bool)
    known = is_int or is_word(views, "ten-crop") or _grid(views) is not None
    if not known or not 1 <= n_views(views) <= MOST_VIEWS:
        kinds = "'flip', 'ten-crop', a grid of tiles such as '3x3', or an int"
        raise parameter_error(owner, "views", f"{kinds}, with 1 to {MOST_VIEWS} views", views)
    return views


def n_views(views: int | str) -> int:
    """Return the number of views of each image; a grid adds the image itself to its tiles."""
    if isinstance(views, int):
        return views
    grid = _grid(views)
    return {"flip": 2, "ten-crop": 10}[views] if grid is None else 1 + grid[0] * grid[1]


def views_of(views: int | str, pixels: np.ndarray) -> list[View]:
    """Return the views of an image, pixels uint8 (h, w, 3); the first is the image itself."""
    if isinstance(views, int):
        return [cached_view(number, STRENGTHS["light"], pixels) for number in range(views)]
    height, width = pixels.shape[:2]
    grid = _grid(views)
    if grid is not None:  # squares that cover the image if there are enough
        side = min(max(height / grid[0], width / grid[1]), height, width)
        return [View(), *(View(box) for box in _squares(*grid, side, height, width))]
    side = _CORNER * min(height, width)
    corners = [View(box) for box in _squares(2, 2, side, height, width)]
    mirrored = [dataclasses.replace(view, mirrored=True) for view in corners]
    return [View(), View(mirrored=True), *corners, *mirrored]


def prepare(preprocessing: Any, views: int | str, pixels: np.ndarray) -> torch.Tensor:
    """Return the prepared views of an image, as `Backbone.prepare` does."""
    import torch

    if n_views(views) == 1:
        return preprocessing(pixels)
    return torch.stack([view(pixels, preprocessing) for view in views_of(views, pixels)])


def prepare_view(
    preprocessing: Any, number: int, strength: Strength, pixels: np.ndarray
) -> torch.Tensor:
    """Return the prepared `cached_view` of an image."""
    return cached_view(number, strength, pixels)(pixels, preprocessing)


def split_views(prepared: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return network inputs, (3, height, width) each, from images with or without views."""
    return [view for image in prepared for view in (image if image.ndim == 4 else (image,))]


def views_recipe(views: int | str) -> dict[str, Any]:
    """Return the part of a recipe that identifies `views_of` (JSON)."""
    if isinstance(views, int):
        return {"n": views, "last": view_recipe(views - 1, STRENGTHS["light"])}
    return {"n": n_views(views), "scheme": views, "version": 1}


def _grid(views: Any) -> tuple[int, int] | None:
    text = views if isinstance(views, str) else ""
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _squares(rows: int, columns: int, side: float, height: int, width: int) -> list[Box]:
    """Return the boxes of evenly spaced squares, from corner to corner, row by row."""
    x, y = side / width, side / height
    return [
        (left, top, left + x, top + y) for top in _spaced(rows, y) for left in _spaced(columns, x)
    ]


def _spaced(n: int, size: float) -> list[float]:
    return np.linspace(0, 1 - size, n).tolist() if n > 1 else [(1 - size) / 2]
