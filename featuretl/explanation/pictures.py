"""Files of overlays: one per image, or one with all images side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from featuretl._core.files import replace_file
from featuretl._core.text import printable
from featuretl.exceptions import ParameterError
from featuretl.explanation.explanation import Explanation
from featuretl.extraction.outputs import check_output

ENDINGS = (".png", ".jpg", ".jpeg")
MOST_SIDE_BY_SIDE = 12

_SUFFIX = "-explained.png"
_CAPTION, _FONT, _GAP = 22, 14, 6
_WIDEST = 4  # times the height


def save_overlays(
    explanations: Sequence[Explanation], output: str | os.PathLike[str], *, height: int = 256
) -> list[Path]:
    """Write overlays and return the files. Raises ParameterError if that fails, and ImageError.

    If `output` ends in .png, .jpg or .jpeg, it is one picture of at most 12 overlays, `height`
    pixels high, with target and score below. Otherwise it is a folder of ``NAME-explained.png``.
    """
    target = check_overlay_output(output, [e.image for e in explanations])
    try:
        if target.suffix.lower() in ENDINGS:
            _save(_side_by_side(explanations, height), target)
            return [target]
        target.mkdir(parents=True, exist_ok=True)
        files = [target / name for name in _names(explanations)]
        for explanation, file in zip(explanations, files, strict=True):
            _save(explanation.overlay(), file)
        return files
    except OSError as error:
        raise ParameterError(
            f"The output {printable(target)!r} cannot be written ({error.strerror or error}); "
            "free disk space or choose another path."
        ) from error


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
    paths = [Path(image) for image in images if isinstance(image, (str, os.PathLike))]
    if target.resolve() in [path.resolve() for path in paths]:
        raise ParameterError(
            f"The output {printable(target)!r} is one of the images; choose another path."
        )
    return target


def _names(explanations: Sequence[Explanation]) -> list[str]:
    """Return one file name per image, numbered if images share a name."""
    names: list[str] = []
    for i, explanation in enumerate(explanations):
        image = explanation.image
        stem = Path(image).stem if isinstance(image, (str, os.PathLike)) else f"image-{i}"
        name, number = f"{stem}{_SUFFIX}", 1
        while name in names:
            number += 1
            name = f"{stem}-{number}{_SUFFIX}"
        names.append(name)
    return names


def _side_by_side(explanations: Sequence[Explanation], height: int) -> Image.Image:
    tiles = [_tile(explanation, height) for explanation in explanations]
    width = sum(tile.width + _GAP for tile in tiles) - _GAP
    whole = Image.new("RGB", (width, height + _CAPTION), "white")
    left = 0
    for tile in tiles:
        whole.paste(tile, (left, 0))
        left += tile.width + _GAP
    return whole


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
