"""Images with another number of channels than three: arrays, and TIFF files through tifffile."""

from __future__ import annotations

import io
import math

import numpy as np

from featuretl._core.text import reason_of
from featuretl.exceptions import ImageError
from featuretl.images.decode import MAX_PIXELS

# Pixels of a file: bytes that are always read, and bytes per byte of a larger file.
_ALWAYS, _MOST_EXPANSION = 2**26, 250


def check_channels(array: np.ndarray, n_channels: int) -> np.ndarray:
    """Return an array of uint8 (h, w, n_channels); a single channel may lack its axis."""
    if array.ndim == 2 and n_channels == 1:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] != n_channels or 0 in array.shape:
        raise ImageError(
            f"an array of shape {array.shape}; expected (h, w, {n_channels}), as in_chans is "
            f"{n_channels}"
        )
    if array.dtype != np.uint8:
        raise ImageError(
            f"channels of dtype {array.dtype}; scale them to uint8 in 0..255 yourself, as their "
            "range is not known"
        )
    return np.ascontiguousarray(array)


def decode_channels(data: bytes, n_channels: int) -> np.ndarray:
    """Return the channels, uint8 (h, w, n_channels), of the first image in a TIFF file."""
    try:
        import tifffile
    except ImportError as error:
        raise ImageError(
            "files of several channels need tifffile: pip install 'featuretl[tiff]'"
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            shape, axes = series.shape, series.axes
            if series.dtype != np.uint8:
                raise ImageError(f"a TIFF of {series.dtype}; scale its channels to uint8 yourself")
            most = min(MAX_PIXELS * n_channels, max(_ALWAYS, _MOST_EXPANSION * len(data)))
            if math.prod(shape) > most:
                raise ImageError(f"a TIFF that claims {shape} in {len(data):,} bytes")
            channels = series.asarray()
    except ImageError:
        raise
    except Exception as error:  # tifffile raises any exception for damaged files
        raise ImageError(f"no TIFF file ({reason_of(error)})") from error
    # Bands stand in front, as in GDAL's files ("SYX", "CYX"), or behind ("YXS").
    if channels.ndim == 3 and axes[-2:] == "YX":
        channels = np.moveaxis(channels, 0, -1)
    return check_channels(channels, n_channels)
