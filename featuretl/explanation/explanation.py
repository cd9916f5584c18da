"""Explanation: the evidence for one value in one image, and its overlay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from featuretl._core.parameters import axes_or_new, parameter_error
from featuretl.images.inputs import read

_FOR, _AGAINST = np.array([[255, 40, 0], [0, 90, 255]], np.float32)
_UNSEEN = 0.5


@dataclass(frozen=True, eq=False)
class Explanation:
    """The evidence for a prediction in an image; returned by `explain`.

    Attributes
    ----------
    image : path, bytes, PIL image or uint8 array
        The image that was passed to `explain`.
    target : object
        Class or label. For regression None, or the position of one of several targets.
    score : float
        The model's decision value for `target`, or its predicted number.
    heat : ndarray of shape (h, w), float32
        Evidence in the cells of a grid over `box`, in units of the score: positive values support
        `target`, negative ones contradict it. For "gradient attention rollout", >= 0 and unitless.
    box : tuple of 4 float
        The part of the image that the network sees: left, top, right, bottom, in pixels of the
        image after EXIF rotation.
    method : {"class activation map", "HiResCAM", "gradient attention rollout"}
        See `explain`.
    bias : float or None
        For a class activation map, ``score - heat.mean()``: the score without any evidence.
    """

    image: Any = field(repr=False)
    target: Any
    score: float
    heat: np.ndarray = field(repr=False)
    box: tuple[float, float, float, float]
    method: str
    bias: float | None = None

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """Return the image in grey with its evidence: red supports the target, blue contradicts it.

        The part that the network does not see is darkened.

        Parameters
        ----------
        alpha : float in [0, 1], default=0.6
            Opacity of the strongest evidence; cells without evidence are transparent.

        Returns
        -------
        PIL.Image.Image
            RGB, in the size of the image.

        Raises
        ------
        ImageError
            If the image can no longer be read.
        """
        if not 0 <= alpha <= 1:
            raise parameter_error("overlay", "alpha", "a number in [0, 1]", alpha)
        pixels = read(self.image).pixels()
        height, width = pixels.shape[:2]
        left, right = _within(self.box[0], self.box[2], width)
        top, bottom = _within(self.box[1], self.box[3], height)
        strength = self._strength(left, top, right, bottom)[..., None]
        colour = np.where(strength > 0, _FOR, _AGAINST)
        opacity = alpha * np.abs(strength)
        grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))
        drawn = (grey * _UNSEEN).astype(np.uint8)
        seen = grey[top:bottom, left:right]
        drawn[top:bottom, left:right] = np.rint(seen * (1 - opacity) + colour * opacity)
        return Image.fromarray(drawn)

    def plot(self, ax: Any = None, alpha: float = 0.6) -> Any:
        """Draw the overlay into `ax`, or into a new figure, with target and score as the title.

        Returns the axes; see `overlay` for `alpha`. Raises FeatureTLError without matplotlib.
        """
        ax = axes_or_new(ax)
        ax.imshow(self.overlay(alpha))
        ax.set_title(self.caption, parse_math=False)
        ax.set_axis_off()
        return ax

    def _strength(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """Return the heat of the pixels in a part of the image, float32 (h, w) in [-1, 1]."""
        heat = Image.fromarray(self.heat / (float(np.abs(self.heat).max()) or 1.0))
        x0, y0, x1, y1 = self.box
        x = (np.array([left, right]) - x0) / (x1 - x0) * heat.width
        y = (np.array([top, bottom]) - y0) / (y1 - y0) * heat.height
        (x0, x1), (y0, y1) = x.clip(0, heat.width), y.clip(0, heat.height)
        size, part = (right - left, bottom - top), (x0, y0, x1, y1)
        return np.asarray(heat.resize(size, Image.Resampling.BILINEAR, part)).clip(-1, 1)

    @property
    def caption(self) -> str:
        """Target and score as text."""
        return f"{self.score:.2f}" if self.target is None else f"{self.target}: {self.score:.2f}"


def _within(begin: float, end: float, size: int) -> tuple[int, int]:
    """Return the range of pixels of [begin, end] within [0, size], at least one pixel."""
    first = min(max(0, round(begin)), size - 1)
    return first, max(first + 1, min(size, round(end)))
