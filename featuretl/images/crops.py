"""Crops: boxes of image files, each of which is an image of its own."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from featuretl._core.files import is_url
from featuretl._core.forks import begin_again_after_fork
from featuretl._core.text import printable
from featuretl.exceptions import ImageError
from featuretl.images.decode import MAX_PIXELS

BOX = ("x", "y", "w", "h")


@dataclass(frozen=True)
class Crop:
    """A box of an image file; it can be passed wherever featuretl takes an image.

    Nothing is checked before the crop is read: a box that breaks the rules below makes this one
    image unreadable, as a damaged file does.

    Parameters
    ----------
    path : path
        An image file.
    x, y, w, h : float
        Left edge, upper edge, width and height of the box in pixels of the image as it is seen,
        which is after its EXIF orientation is applied. The upper left corner is x = y = 0.
    source : str, default=""
        Where the box is written, for error messages, such as ``"row 7 of boxes.csv"``. Two crops
        that differ in it only are equal.

    Notes
    -----
    The edges x, y, x + w and y + h are rounded to whole pixels (0.5 up). The rounded box must hold
    a pixel, and may leave the image by one pixel, which is cut off.

    The key of the embedding is the content of the file and the rounded box. An extraction decodes a
    file about once for all its crops. Without `groups`, the estimators and reports of featuretl
    that split images or compute intervals put the crops of one file into one group.

    Examples
    --------
    >>> import pandas as pd
    >>> boxes = pd.DataFrame({"path": ["a.jpg"] * 2, "x": [0, 40], "y": 10, "w": 32, "h": 32})
    >>> [Crop(*row) for row in boxes.itertuples(index=False)][1]
    Crop(path='a.jpg', x=40, y=10, w=32, h=32, source='')
    """

    path: str | os.PathLike[str]
    x: Any
    y: Any
    w: Any
    h: Any
    source: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The name in messages: the path and the box; safe to print."""
        box = ", ".join(f"{name}={_text(getattr(self, name))}" for name in BOX)
        return printable(f"{self.path} ({box})")

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge in whole pixels. Raises ImageError."""
        for name in BOX:
            value = getattr(self, name)
            if not _is_pixels(value):
                got = "an empty cell" if value is None else _text(value)
                raise self._error(
                    f"{name} of the box must be a number of up to {MAX_PIXELS:,} pixels; got {got}"
                )
        x, y, w, h = (float(getattr(self, name)) for name in BOX)
        left, top, right, bottom = (math.floor(edge + 0.5) for edge in (x, y, x + w, y + h))
        if right <= left or bottom <= top:
            raise self._error(f"the box must hold a pixel; got w={w:g}, h={h:g}")
        return left, top, right, bottom

    def key(self, digest: bytes) -> bytes:
        """Return the key of the crop's embedding, from the sha256 of its file. Raises ImageError"""
        return hashlib.sha256(b"crop %d %d %d %d\n" % self.edges + digest).digest()

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return a copy of the box of an image (h, w, 3). Raises ImageError."""
        left, top, right, bottom = self.edges
        height, width = pixels.shape[:2]
        inside = pixels[max(top, 0) : bottom, max(left, 0) : right]
        if min(left, top) < -1 or right > width + 1 or bottom > height + 1 or not inside.size:
            raise self._error(
                f"the box from {left}, {top} to {right}, {bottom} leaves the image, which has "
                f"{width} x {height} pixels"
            )
        return inside.copy()

    def _error(self, message: str) -> ImageError:
        return ImageError(f"{self.source}: {message}" if self.source else message)


def _is_pixels(value: Any) -> bool:
    return isinstance(value, Real) and bool(abs(value) <= MAX_PIXELS)  # type: ignore[operator]


def _text(value: Any) -> str:
    try:
        return repr(value.item() if isinstance(value, np.generic) else value)[:40]
    except ValueError:  # an int of over 4,300 digits
        return f"a huge {type(value).__name__}"


class Photo:
    """The content of a file of which there are crops, decoded at most once."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self._lock = threading.Lock()
        self._pixels: np.ndarray | None = None
        self._error: str | None = None

    def pixels(self, decoder: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """Return the pixels, which are shared: do not change them. Raises ImageError."""
        with self._lock:
            if self._error is None and self._pixels is None:
                try:
                    self._pixels = self.content.pixels(decoder)
                except ImageError as error:
                    self._error = str(error)
            if self._pixels is None:
                raise ImageError(self._error)
            return self._pixels

    def is_in(self, path: str) -> bool:
        """Return whether the state of the file is that of its content; of a URL it is not asked."""
        if is_url(path):
            return True
        try:
            now, known = os.stat(path), self.content.state
        except (OSError, ValueError):
            return False
        facts = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        return all(getattr(now, name) == getattr(known, name, None) for name in facts)


class _Photos:
    """The last photo of each thread, for all threads; only these stay in memory."""

    def __init__(self) -> None:
        self.begin_in_child()
        begin_again_after_fork(self)

    def begin_in_child(self) -> None:
        """Begin without photos: another thread may hold their locks."""
        self.lock = threading.Lock()
        self.by_path: WeakValueDictionary[str, Photo] = WeakValueDictionary()
        self.last = threading.local()


_PHOTOS = _Photos()


def photo_of(path: str, read: Callable[[str], Any]) -> Photo:
    """Return the photo at a path; `read` returns its `Content`, unless a thread has just read it."""
    with _PHOTOS.lock:
        photo = _PHOTOS.by_path.get(path)
    if photo is None or not photo.is_in(path):
        content = read(path)
        with _PHOTOS.lock:
            photo = _PHOTOS.by_path.get(path)
            if photo is None or photo.content.key != content.key:
                photo = _PHOTOS.by_path[path] = Photo(content)
            photo.content = content  # with the newer state
    _PHOTOS.last.photo = photo
    return photo


def number_or_text(text: str | None) -> Any:
    """Return the number in a cell of a table, or the cell itself if it holds none."""
    try:
        value = float((text or "").replace("_", "?"))  # Python would read 1_0 as 10
    except ValueError:
        return text
    return int(value) if value.is_integer() else value


def has_crops(images: Sequence[Any]) -> bool:
    """Return whether there are crops; of a sequence that may read files, look at one item only."""
    some = images if isinstance(images, (list, tuple)) else itertools.islice(images, 1)
    return any(isinstance(image, Crop) for image in some)


def box_columns(images: Sequence[Any]) -> dict[str, list[float | None]]:
    """Return the columns `BOX` of images; None where there is no number, {} if none is a crop."""
    if not has_crops(images):
        return {}
    values: dict[str, list[Any]] = {
        name: [getattr(image, name, None) for image in images] for name in BOX
    }
    return {
        name: [float(value) if _is_pixels(value) else None for value in column]
        for name, column in values.items()
    }


def by_file(rows: list[int], images: Sequence[Any]) -> list[int]:
    """Return rows of images in an order in which the crops of one file follow one another."""
    if not has_crops(images):
        return rows
    return sorted(rows, key=lambda i: str(getattr(images[i], "path", "")))


def or_files(groups: Any, images: Sequence[Any]) -> Any:
    """Return `groups`; if they are None and there are crops, the file of each image instead."""
    if groups is not None or not has_crops(images):
        return groups
    paths = [image.path if isinstance(image, Crop) else image for image in images]
    return [
        os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else f"image {i}"
        for i, path in enumerate(paths)
    ]
