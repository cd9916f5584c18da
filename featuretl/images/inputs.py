"""Images that Python callers pass: how each is read, named and identified by its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from featuretl._core.text import printable
from featuretl.exceptions import ImageError, InputError
from featuretl.images.channels import check_channels
from featuretl.images.crops import Crop, photo_of
from featuretl.images.datasets import array_of, items_of
from featuretl.images.decode import (
    CHANNELS,
    channels_last,
    decode,
    describe,
    read_file,
    rgb_from_array,
    rgb_from_pil,
    values_problem,
)

ONE_IMAGE = (str, bytes, os.PathLike, Image.Image, Crop)

Decoder = Callable[..., np.ndarray]  # as `decode`


@dataclass(eq=False, frozen=True)
class Content:
    """The content of one image, read once.

    `key` is the sha256 (32 bytes) of a file's bytes, of the shape and RGB pixels of an image in
    memory, or that of `Crop.key`. `state` is the state of a file that did not change while it was
    read, and `digest` the sha256 of its bytes.
    """

    key: bytes
    data: bytes | np.ndarray | Callable[[Decoder], np.ndarray]
    state: os.stat_result | None = None
    digest: bytes = b""

    def pixels(self, decoder: Decoder = decode, least_side: int = 0) -> np.ndarray:
        """Decode to RGB, uint8 (h, w, 3), as `decode`; crops in full. Raises ImageError."""
        if isinstance(self.data, np.ndarray):
            return self.data
        if isinstance(self.data, bytes):
            return decoder(self.data, least_side) if least_side else decoder(self.data)
        return self.data(decoder)


def as_images(X: Any, owner: str) -> Sequence[Any]:
    """Return the images of `X`, as in `ImageEmbedder.transform`, unread. Raises InputError."""
    if isinstance(X, ONE_IMAGE):
        raise InputError(
            f"X of {owner} must be a sequence of images; got a single {type(X).__name__}: "
            "wrap it in a list (for a folder, use load_image_folder)."
        )
    given = X
    try:
        X = one_column(array_of(items_of(X)))
    except ImageError as error:
        raise InputError(f"X of {owner} must be images; got {error}.") from error
    ndim: Any = getattr(X, "ndim", None)
    shape: Any = getattr(X, "shape", None)
    may_be_one = ndim == 3 and (shape[2] in CHANNELS or (X is not given and shape[0] == 3))
    if isinstance(X, np.ndarray) and ndim in (3, 4) and not may_be_one:
        if problem := values_problem(X):
            raise InputError(f"X of {owner} must be pixels; got shape {X.shape} and {problem}.")
        X = channels_last(X) if ndim == 4 else X[..., None]
        return X if X.dtype == np.uint8 else list(X)
    if isinstance(X, Sequence):
        return X
    columns = list(getattr(given, "columns", ()))
    got = f"shape {shape} and dtype {X.dtype}" if ndim is not None else type(X).__name__
    if may_be_one:
        got += ": write X[None] for one image, X[..., None] for n grey images"
    elif len(columns) > 1:
        got += f": pass one column, e.g. X[[{printable(columns[0])!r}]]"
    raise InputError(
        f"X of {owner} must be a list, 1-D array, Series or one-column frame of paths, bytes or "
        f"images, or an array of shape (n, h, w, 3); got {got}."
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
) -> Content:
    """Read one image and compute its key, each in its `stage`, for timing. Raises ImageError."""
    if isinstance(image, dict):  # an undecoded image of a Hugging Face dataset
        return replace(read(image.get("bytes") or image.get("path"), stage, n_channels), state=None)
    if isinstance(image, (str, os.PathLike)):
        with stage("read"):
            data, state = read_file(image)
        with stage("hash"):
            digest = hashlib.sha256(data).digest()
            return Content(digest, data, state, digest)
    if isinstance(image, Crop):
        if (path := file_of(image)) is None:
            raise ImageError(f"a crop of a {type(image.path).__name__}; expected one of a path")
        image.key(b"")  # a box without pixels needs no file
        photo = photo_of(path, partial(read, stage=stage))
        key = image.key(photo.content.key)
        return replace(photo.content, key=key, data=lambda by: image.cut(photo.pixels(by)))
    if isinstance(image, bytes):
        with stage("hash"):
            return Content(hashlib.sha256(image).digest(), image)
    image = array_of(image)
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
        pair = "; of (image, label) pairs pass the images" if isinstance(image, tuple) else ""
        raise ImageError(
            f"a {type(image).__name__}; expected a path, a crop, bytes, a PIL image, an array or a "
            f"tensor{pair}"
        )
    with stage("hash"):
        return Content(_digest_of(pixels), pixels)


def _digest_of(pixels: np.ndarray) -> bytes:
    """Return the sha256 of the shape and the pixels of an image in memory."""
    kind = "RGB" if pixels.shape[2] == 3 else f"{pixels.shape[2]} channels"
    hashed = hashlib.sha256(f"{kind} uint8 {pixels.shape[0]} {pixels.shape[1]}\n".encode())
    hashed.update(np.ascontiguousarray(pixels).data)  # without a copy or Python's lock
    return hashed.digest()


def contents_of(images: Sequence[Any]) -> list[bytes]:
    """Return the content key of each image; for an unreadable image, its position."""
    keys = []
    for index, image in enumerate(images):
        try:
            keys.append(read(image).key)
        except ImageError:
            keys.append(str(index).encode())
    return keys
