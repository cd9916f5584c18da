"""Images that Python callers pass: how each is read, named and identified by its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from featuretl._core.text import printable
from featuretl.exceptions import ImageError, InputError
from featuretl.images.channels import check_channels
from featuretl.images.crops import Crop, CropContent, photo_of
from featuretl.images.decode import decode, describe, read_file, rgb_from_array, rgb_from_pil

ONE_IMAGE = (str, bytes, os.PathLike, Image.Image, Crop)

Decoder = Callable[[bytes], np.ndarray]


@dataclass(eq=False, frozen=True)
class Content:
    """The content of one image, read once.

    `key` is the sha256 (32 bytes) of a file's bytes, or of the shape and RGB pixels of an image in
    memory; `state` is the state of a file that did not change while it was read.
    """

    key: bytes
    data: bytes | np.ndarray
    state: os.stat_result | None = None

    @property
    def digest(self) -> bytes:
        """The sha256 of the file's bytes, if there is a `state`."""
        return self.key

    def pixels(self, decoder: Decoder = decode) -> np.ndarray:
        """Decode to RGB: uint8 (h, w, 3). Raises ImageError."""
        return self.data if isinstance(self.data, np.ndarray) else decoder(self.data)


def as_images(X: Any, owner: str) -> Sequence[Any]:
    """Return the images of `X`: a sequence of paths, crops, bytes, PIL images or uint8 arrays.

    `X` is a list, tuple, 1-D array, Series, one-column frame or array, or a uint8 array (n, h, w,
    1), (n, h, w, 3) or (n, h, w, 4). Raises InputError otherwise; a single bad image fails when it
    is read.
    """
    if isinstance(X, ONE_IMAGE):
        raise InputError(
            f"X of {owner} must be a sequence of images; got a single {type(X).__name__}: "
            "wrap it in a list (for a folder, use load_image_folder)."
        )
    X = one_column(X)
    is_pixels = isinstance(X, np.ndarray) and X.ndim == 4 and X.dtype == np.uint8
    if is_pixels or isinstance(X, Sequence):
        return X
    is_array = isinstance(X, np.ndarray)
    got = f"shape {X.shape} and dtype {X.dtype}" if is_array else type(X).__name__
    raise InputError(
        f"X of {owner} must be a list, 1-D array, Series or one-column frame of paths, bytes or "
        f"images, or a uint8 array of shape (n, h, w, 3); got {got}."
    )


def one_column(X: Any) -> Any:
    """Return a Series, or a one-column frame or array, as a list; other frames as arrays."""
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    is_list = isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "OUT"
    return X.tolist() if is_list else X


def is_file(image: Any) -> bool:
    """Return whether an item is a path."""
    return isinstance(image, (str, os.PathLike))


def file_of(image: Any) -> str | None:
    """Return the path of the file that an item is, or is a crop of; None for other items."""
    path = image.path if isinstance(image, Crop) else image
    return os.fspath(path) if is_file(path) else None


def key_of(image: Any, digest: bytes) -> bytes:
    """Return the key of an item, from the sha256 of its file. Raises ImageError for a bad crop."""
    return image.key(digest) if isinstance(image, Crop) else digest


def name_of(image: Any, index: int) -> str:
    """Return the name of an image in messages: its path or its position; safe to print."""
    if is_file(image):
        return printable(os.fspath(image))
    if isinstance(image, Crop):
        return image.name
    return f"image {index} ({type(image).__name__})"


def read(
    image: Any,
    stage: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    n_channels: int = 3,
) -> Content | CropContent:
    """Read one image and compute its key. Raises ImageError.

    `stage("read")` and `stage("hash")` are the contexts of these steps, for example for timing.
    """
    if isinstance(image, (str, os.PathLike)):
        with stage("read"):
            data, state = read_file(image)
        with stage("hash"):
            return Content(hashlib.sha256(data).digest(), data, state)
    if isinstance(image, Crop):
        if (path := file_of(image)) is None:
            raise ImageError(f"a crop of a {type(image.path).__name__}; expected one of a path")
        image.key(b"")  # a box without pixels needs no file
        photo = photo_of(path, partial(read, stage=stage))
        content = photo.content
        return CropContent(image, photo, image.key(content.key), content.key, content.state)
    if isinstance(image, bytes):
        with stage("hash"):
            return Content(hashlib.sha256(image).digest(), image)
    if isinstance(image, np.ndarray) and n_channels not in (1, 3):
        pixels = check_channels(image, n_channels)
    elif isinstance(image, np.ndarray):
        pixels = rgb_from_array(image)
    elif isinstance(image, Image.Image):
        try:
            pixels = rgb_from_pil(image)
        except ImageError:
            raise
        except Exception as error:  # Pillow decodes a lazily opened file only now
            raise ImageError(describe(error)) from error
    else:
        raise ImageError(
            f"a {type(image).__name__}; expected a path, a crop, bytes, a PIL image or a uint8 array"
        )
    with stage("hash"):
        kind = "RGB" if pixels.shape[2] == 3 else f"{pixels.shape[2]} channels"
        header = f"{kind} uint8 {pixels.shape[0]} {pixels.shape[1]}\n".encode()
        return Content(hashlib.sha256(header + pixels.tobytes()).digest(), pixels)


def contents_of(images: Sequence[Any]) -> list[bytes]:
    """Return the content key of each image; for an unreadable image, its position."""
    keys = []
    for index, image in enumerate(images):
        try:
            keys.append(read(image).key)
        except ImageError:
            keys.append(str(index).encode())
    return keys
