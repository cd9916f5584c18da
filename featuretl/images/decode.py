"""The decode policy: how image files become RGB pixels; docs/formats.md is the specification.

A change of this module that changes pixels must increase the version in `DECODE_POLICY`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.features import check_feature

from featuretl._core.files import contents, file_system, is_url, open_local, without_scheme
from featuretl._core.text import reason_of
from featuretl.exceptions import ImageError, ParameterError
from featuretl.images.heif import is_heif, open_heif

DECODE_POLICY = {
    "version": 2,
    "decoder": "pillow",
    "exif": "applied",
    "alpha": "on white",
    "16-bit": "/257",
    "frame": "first",
}
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "AVIF")
RARE_SUFFIXES = frozenset(".heic .heif .hif .jxl".split())  # may need an extra, or fail
SUFFIXES = RARE_SUFFIXES | frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .dib .tif .tiff .webp "
    ".ppm .pgm .pbm .pnm .tga .avif".split()
)
CHANNELS = (1, 3, 4)

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own warning limit: 256 MiB of 24-bit pixels
MAX_JPEG_SCANS = 1_000

RACY_NS = 2 * 10**9  # a younger change may leave the times as they are; git calls the file racy

_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE_IS_ZERO, _SIGNED = 0, 2  # PhotometricInterpretation, SampleFormat of TIFF
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_BLOCK_VALUES = 2**20
_FAST_JPEG = bool(importlib.util.find_spec("simplejpeg")) and check_feature("libjpeg_turbo")


def read_file(path: str | os.PathLike[str]) -> tuple[bytes, os.stat_result | None]:
    """Return the bytes of a regular file, and its state if it is `settled`, else None.

    A URL is read through fsspec, and has no state. Raises ImageError if the file is missing, not
    regular, unreadable or over `MAX_FILE_BYTES`.
    """
    if isinstance(path, str) and is_url(path):
        path = without_scheme(path)
        if is_url(path):
            return _download(path), None
    try:
        with open_local(path, buffering=0) as file:
            descriptor = file.fileno()
            before = os.fstat(descriptor)
            if before.st_size > MAX_FILE_BYTES:
                raise ImageError(f"{before.st_size} bytes, over the limit of {MAX_FILE_BYTES}")
            data = os.read(descriptor, before.st_size + 1)
            while len(data) != before.st_size and (more := os.read(descriptor, 2**20)):  # it grew
                data += more
                if len(data) > MAX_FILE_BYTES:
                    raise ImageError(f"it grew over the limit of {MAX_FILE_BYTES} bytes")
            after = os.fstat(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, ImageError):
            raise
        raise ImageError(getattr(error, "strerror", None) or str(error)) from error
    return data, after if settled(before, after, len(data)) else None


def _download(url: str) -> bytes:
    try:
        fs, inside = file_system(url)
        (found,) = contents(fs, [inside], MAX_FILE_BYTES)
    except ParameterError as error:
        raise ImageError(str(error).removesuffix(".")) from error
    if isinstance(found, bytes):
        return found
    cause = found.__cause__ or found  # to fsspec every failure of HTTP is a missing file
    is_missing = isinstance(cause, (FileNotFoundError, IsADirectoryError))
    raise ImageError("no such file" if is_missing else reason_of(cause)) from found


def settled(before: os.stat_result, after: os.stat_result, size: int) -> bool:
    """Return whether a file kept its state and `size` while it was read, and `RACY_NS` before."""
    times = after.st_mtime_ns, after.st_ctime_ns
    is_same = before.st_size == after.st_size == size
    is_same = is_same and (before.st_mtime_ns, before.st_ctime_ns) == times
    return is_same and time.time_ns() - max(times) > RACY_NS


def decode(data: bytes, least_side: int = 0) -> np.ndarray:
    """Decode the bytes of an image file to RGB: uint8 (h, w, 3).

    A JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and 1 that leaves its shorter side `least_side`
    pixels, unless this is 0. Raises ImageError unless the bytes are one whole image within the limits.
    """
    if not data:
        raise ImageError("empty: 0 bytes")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"over the limit of {MAX_FILE_BYTES} bytes")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise ImageError(f"a JPEG of more than {MAX_JPEG_SCANS} scans")
    try:
        with _opened(data) as image:
            return rgb_from_pil(image, least_side, data)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        formats = ", ".join((*FORMATS, "HEIC"))
        if data.startswith(_JPEG_XL):
            raise ImageError("a JPEG XL image, which is not supported; save it as PNG") from error
        raise ImageError(f"not an image in a supported format ({formats})") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile input
        raise ImageError(describe(error)) from error


def _opened(data: bytes) -> Image.Image:
    if is_heif(data):
        return open_heif(data, MAX_PIXELS)
    return Image.open(io.BytesIO(data), formats=FORMATS)


def golden_pixels(n_channels: int = 3) -> np.ndarray:
    """Return the packaged photograph, uint8 (240, 320, n_channels), whose three channels repeat."""
    pixels = decode((Path(__file__).parent / "golden.jpg").read_bytes())
    return pixels if n_channels in (1, 3) else pixels[..., np.arange(n_channels) % 3]


def describe(error: Exception) -> str:
    """Return the message of an error, after its type where the message alone is unclear."""
    is_clear = isinstance(error, (OSError, SyntaxError, Image.DecompressionBombError))
    return str(error) if is_clear and str(error) else f"{type(error).__name__}: {error}"


def rgb_from_pil(image: Image.Image, least_side: int = 0, data: bytes = b"") -> np.ndarray:
    """Return a PIL image's pixels, uint8 (h, w, 3), writable; `decode` has the other parameters."""
    width, height = image.size
    if not width * height:
        raise ImageError(f"{width} x {height} pixels; expected at least 1 pixel")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS} pixels")
    _scale_transparency_key(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "L" and _SIGNED in np.atleast_1d(tags.get(Base.SampleFormat, 1)):
        raise ImageError("signed 8-bit pixels have no standard range; save as unsigned 8 bits")
    if least_side:
        image.draft(None, (least_side, least_side))
    if (upright := _by_simplejpeg(image, data)) is not None:
        return upright
    image.load()  # before the EXIF is read: here Pillow's TIFF plugin rotates the image itself
    orientation: Any = None
    with contextlib.suppress(Exception):  # a corrupt EXIF block does not make the pixels corrupt
        orientation = image.getexif().get(Base.Orientation)
    transpose = _TRANSPOSE_OF_ORIENTATION.get(orientation)
    if image.mode.startswith("I"):
        pixels = _rgb_from_16_bit(image)
    elif image.mode in ("F", "LAB", "HSV"):
        raise ImageError(f"{image.mode} pixels have no standard range; save as 8 or 16 bits RGB")
    elif image.has_transparency_data:
        pixels = _on_white(image)
    else:
        image = image if image.mode == "RGB" else image.convert("RGB")
        return np.array(image if transpose is None else image.transpose(transpose))
    return pixels if transpose is None else np.array(Image.fromarray(pixels).transpose(transpose))


def _by_simplejpeg(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Return a JPEG's pixels, which are Pillow's in half the time; None if Pillow must decode it."""
    is_usual = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
    # Of smaller images simplejpeg could choose another fraction of the size, such as 7/8.
    if not (_FAST_JPEG and data and is_usual and min(image.size) >= 64):
        return None
    with contextlib.suppress(Exception):  # the file is damaged
        import simplejpeg

        pixels = np.empty((image.height, image.width, 3), np.uint8)
        if image.getexif().get(Base.Orientation, 1) not in _TRANSPOSE_OF_ORIENTATION:
            found = simplejpeg.decode_jpeg(data, "RGB", False, False, *pixels.shape[:2], 1, pixels)
            return pixels if found.shape == pixels.shape else None
    return None


def rgb_from_array(array: np.ndarray) -> np.ndarray:
    """Return the RGB pixels of an array (h, w), (h, w, c) or (c, h, w), where c is 1, 3 or 4.

    It holds uint8, or floats in [0, 1], of which featuretl rounds 255 times the value.
    """
    shape = array.shape
    array = channels_last(array) if array.ndim == 3 else array[..., None]
    if 0 in shape or array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise ImageError(f"an array of shape {shape}; expected (h, w), (h, w, 3) or (h, w, 4)")
    height, width, channels = array.shape
    if height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS} pixels")
    if problem := values_problem(array):
        raise ImageError(f"an array of {problem}")
    if array.dtype != np.uint8:
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    if channels == 3:
        return np.array(array)
    array = array[..., 0] if channels == 1 else array
    return rgb_from_pil(Image.fromarray(np.ascontiguousarray(array)))


def channels_last(array: np.ndarray) -> np.ndarray:
    """Return an array (.., h, w, c), or a view of one (.., c, h, w) with its channels last.

    The channels are last if the last axis can be, as it has the length 1, 3 or 4.
    """
    is_first = array.shape[-3] in CHANNELS and array.shape[-1] not in CHANNELS
    return np.moveaxis(array, -3, -1) if is_first else array


def values_problem(array: np.ndarray) -> str:
    """Return why the values of an array are no pixels, and what to write; empty if they are."""
    if array.dtype == np.uint8 or not array.size:
        return ""
    if array.dtype.kind != "f":
        return f"dtype {array.dtype}; pixels must be uint8 in 0..255, or floats in 0..1"
    low, high = float(array.min()), float(array.max())
    if 0 <= low and high <= 1:
        return ""
    got = f"{array.dtype} in {low:g}..{high:g}; floats must be in 0..1"
    if low >= -0.1 and high <= 1.1:  # as interpolation leaves them
        return f"{got}: write X.clip(0, 1)"
    if 0 <= low and high <= 255:
        return f"{got}: if 255 is white, write X.round().astype(np.uint8)"
    if np.isnan(low):
        return f"{got}: replace NaN, e.g. by np.nan_to_num(X)"
    return f"{got}: undo the normalization first, then (X * 255).round().astype(np.uint8)"


def is_image_name(path: Path) -> bool:
    """Return whether the suffix of a file in a folder is that of an image."""
    return path.suffix.lower() in SUFFIXES


def _scale_transparency_key(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG to 8 bits; Pillow scales only the pixels."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    raw_mode = tiles[0][3] if key is not None and tiles else None
    if isinstance(key, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if raw_mode == "L;2" else 17)
    elif isinstance(key, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _on_white(image: Image.Image) -> np.ndarray:
    """Return the pixels composited on white; blocks of rows bound the memory of the layers."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BLOCK_VALUES // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        layers = image.crop((0, top, width, bottom)).convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        pixels[top:bottom] = np.asarray(Image.alpha_composite(white, layers).convert("RGB"))
    return pixels


def _rgb_from_16_bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    is_inverted = tags.get(Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    largest = 0xFFF if tags.get(Base.BitsPerSample) == (12,) else 0xFFFF
    key = image.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK_VALUES // values.shape[1])  # bounds the memory of int64 values
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.int64)
        if part.min() < 0 or part.max() > largest:
            raise ImageError(
                f"{image.mode} pixels beyond 16 bits have no standard range; save as 16 bits"
            )
        part_of_grey = grey[start : start + rows]
        part_of_grey[...] = np.rint((largest - part if is_inverted else part) / (largest / 255))
        if isinstance(key, int):
            part_of_grey[part == key] = 255
    return np.repeat(grey[..., None], 3, axis=2)
