"""Thumbnails of images as ``data:`` URIs, embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from featuretl.exceptions import ImageError
from featuretl.images.inputs import read

# Images decoded before the budget is checked again.
_BATCH = 256


def data_uri(image: Image.Image, side: int, quality: int) -> str:
    """Return an image, at most `side` pixels wide and high, as a ``data:`` URI of WebP."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnails(
    images: Sequence[Any], side: int, *, quality: int, budget: float = np.inf
) -> list[str | None]:
    """Return the ``data:`` URI of each image; None if it is unreadable or exceeds the budget.

    `budget` is the total length of the URIs in characters.
    """
    made: list[str | None] = []
    spent = 0
    with Parallel(n_jobs=-1, prefer="threads") as parallel:
        while len(made) < len(images) and spent < budget:
            batch = images[len(made) : len(made) + _BATCH]
            for uri in parallel(delayed(_one)(image, side, quality) for image in batch):
                spent += len(uri or "")
                made.append(uri if spent <= budget else None)
    return made + [None] * (len(images) - len(made))


def _one(image: Any, side: int, quality: int) -> str | None:
    try:
        return data_uri(Image.fromarray(read(image).pixels()), side, quality)
    except ImageError:
        return None
