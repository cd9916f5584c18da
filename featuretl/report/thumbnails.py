"""Small pictures of images, as text that goes into a page."""

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

# Decoded at once: a batch is over the budget by no more than this many pictures.
_BATCH = 256


def data_uri(image: Image.Image, side: int, quality: int) -> str:
    """Return a picture, at most `side` pixels wide and high, as a ``data:`` URI of WebP."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnails(
    images: Sequence[Any], side: int, *, quality: int, budget: float = np.inf, n_jobs: int = -1
) -> list[str | None]:
    """Return the ``data:`` URI of each image; None of those that cannot be read, or above a budget.

    Parameters
    ----------
    images : sequence
    side : int
        Pixels of the longer side at most.
    quality : int
        Of WebP, 0 to 100.
    budget : float, default=infinity
        Characters in all; once they are spent the rest is left out, unread.
    n_jobs : int, default=-1
        Threads; -1 is one per core.
    """
    made: list[str | None] = []
    spent = 0
    with Parallel(n_jobs=n_jobs, prefer="threads") as parallel:
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
