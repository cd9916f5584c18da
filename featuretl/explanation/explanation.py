"""Explanation: the evidence for one value in one image, its overlay, and files of overlays."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from featuretl._core.display import Display
from featuretl._core.files import check_output, replace_file, write_errors_as
from featuretl._core.parameters import axes_or_new, check_number
from featuretl._core.text import printable
from featuretl.exceptions import ParameterError
from featuretl.images.inputs import file_of, read

CAM = "class activation map"
HIRESCAM = "HiResCAM"
ROLLOUT = "gradient attention rollout"
ENDINGS = (".png", ".jpg", ".jpeg")
MOST_SIDE_BY_SIDE = 12

_SUFFIX = "-explained.png"
_CAPTION, _FONT, _GAP = 22, 14, 6
_WIDEST = 4  # times the height
_FOR, _AGAINST = np.array([[255, 40, 0], [0, 90, 255]], np.float32)
_UNSEEN = 0.5


class Evidence(NamedTuple):
    """`heat`, float32 (h, w), the `method` that computed it, and `bias`, None unless exact."""

    heat: np.ndarray
    method: str
    bias: float | None


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Display):
    """The evidence for a prediction in an image; returned by `explain`.

    Attributes
    ----------
    image : path, bytes, PIL image, array or tensor
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

    def _facts(self) -> dict[str, Any]:
        grid = "{} x {} cells".format(*self.heat.shape)
        return {"target": self.target, "score": f"{self.score:.3f}", self.method: grid}

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        self.overlay().save(file, "PNG")
        picture = base64.b64encode(file.getvalue()).decode()
        return f"{super()._repr_html_()}<img src='data:image/png;base64,{picture}'>"

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """Return the image in grey with its evidence: red supports the target, blue contradicts it.

        It is RGB in the size of the image; the part that the network does not see is darkened.
        `alpha`, in [0, 1], is the opacity of the strongest evidence; cells without evidence are
        transparent. Raises ImageError if the image can no longer be read.
        """
        check_number("overlay", "alpha", alpha, "[0, 1]")
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


def save_overlays(
    explanations: Sequence[Explanation], output: str | os.PathLike[str], *, height: int = 256
) -> list[Path]:
    """Write overlays and return the files. Raises ParameterError if that fails, and ImageError.

    If `output` ends in .png, .jpg or .jpeg, it is one picture of at most 12 overlays, `height`
    pixels high, with target and score below. Otherwise it is a folder of ``NAME-explained.png``.
    """
    target = check_overlay_output(output, [e.image for e in explanations])
    with write_errors_as(ParameterError, "The output", target):
        if target.suffix.lower() in ENDINGS:
            _save(_side_by_side(explanations, height), target)
            return [target]
        target.mkdir(parents=True, exist_ok=True)
        files = [target / name for name in _names(explanations)]
        for explanation, file in zip(explanations, files, strict=True):
            _save(explanation.overlay(), file)
        return files


def check_overlay_output(output: str | os.PathLike[str], images: Sequence[object]) -> Path:
    """Return `output` as a Path. Raises ParameterError unless the overlays can be written there."""
    target = Path(output)
    if target.is_dir() or not target.suffix:
        return target
    if target.suffix.lower() not in ENDINGS:
        raise ParameterError(
            f"The output must be a folder, or end in {', '.join(ENDINGS)}; got "
            f"{printable(target)!r}."
        )
    check_output(target, (target.suffix,))
    if len(images) > MOST_SIDE_BY_SIDE:
        raise ParameterError(
            f"One picture holds {MOST_SIDE_BY_SIDE} overlays; got {len(images)}: pass a folder."
        )
    paths = [Path(path) for path in map(file_of, images) if path is not None]
    if target.resolve() in [path.resolve() for path in paths]:
        raise ParameterError(
            f"The output {printable(target)!r} is one of the images; choose another path."
        )
    return target


def _names(explanations: Sequence[Explanation]) -> list[str]:
    """Return one file name per image, numbered if images share a name."""
    names: list[str] = []
    for i, explanation in enumerate(explanations):
        path = file_of(explanation.image)
        stem = f"image-{i}" if path is None else Path(path).stem
        name, number = f"{stem}{_SUFFIX}", 1
        while name in names:
            number += 1
            name = f"{stem}-{number}{_SUFFIX}"
        names.append(name)
    return names


def _side_by_side(explanations: Sequence[Explanation], height: int) -> Image.Image:
    tiles = [np.asarray(_tile(explanation, height)) for explanation in explanations]
    gap = np.full((height + _CAPTION, _GAP, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (gap, tile)]
    return Image.fromarray(np.hstack(parts[1:]))


def _tile(explanation: Explanation, height: int) -> Image.Image:
    """Return an overlay of `height` pixels with its caption below."""
    overlay = explanation.overlay()
    width = round(overlay.width * height / overlay.height)
    if width > _WIDEST * height:
        overlay.thumbnail((_WIDEST * height, height))
    else:
        overlay = overlay.resize((max(1, width), height), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (overlay.width, height + _CAPTION), "white")
    tile.paste(overlay)
    font = ImageFont.load_default(_FONT)
    ImageDraw.Draw(tile).text((2, height + 2), printable(explanation.caption), "black", font)
    return tile


def _save(picture: Image.Image, target: Path) -> None:
    kind = "PNG" if target.suffix.lower() == ".png" else "JPEG"
    replace_file(target, lambda partial: picture.save(partial, kind, optimize=True, quality=90))
