"""HEIC and HEIF files, through the optional package pillow-heif."""

from __future__ import annotations

import io
import re
from typing import Any

from featuretl.exceptions import ImageError

_HEVC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_SIZES = b"(?s)(?:\0\0\0\x01ispe.{8}|ispe).{4}(.{4})(.{4})"  # boxes of sizes, short or long
_LIBHEIF = 1, 23  # the first that refuses pixels which exceed the claimed size
_ANY_CODEC, _AVIF = {b"mif1", b"msf1"}, {b"avif", b"avis"}


def is_heif(data: bytes) -> bool:
    """Return whether the bytes of a file begin like HEIF, other than AVIF."""
    if data[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(data[:4]), 1024)
    brands = {data[start : start + 4] for start in range(8, size, 4)}
    return data[8:12] in _HEVC or (data[8:12] in _ANY_CODEC and not brands & _AVIF)


def open_heif(data: bytes, max_pixels: int) -> Any:
    """Return the primary image of a HEIF file as a PIL image that is not decoded yet.

    libheif refuses pixels that exceed the sizes which the file claims; this function refuses claims
    over `max_pixels`, also of tiles and of what is cropped. Raises ImageError.
    """
    for found in re.finditer(_SIZES, data):
        width, height = (int.from_bytes(side) for side in found.groups())
        if width * height > max_pixels:
            raise ImageError(f"{width} x {height} pixels, over the limit of {max_pixels} pixels")
    try:
        from pillow_heif import HeifImageFile, libheif_version

        if tuple(map(int, libheif_version().split(".")[:2])) < _LIBHEIF:
            raise ImportError("this libheif decodes more pixels than files claim")
    except (ImportError, OSError) as error:
        raise ImageError(
            "a HEIC image needs the extra featuretl[heif]: pip install -U 'featuretl[heif]'"
        ) from error
    return HeifImageFile(io.BytesIO(data))
