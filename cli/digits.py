"""The images of ``featuretl demo``: handwritten digits in a training and a test set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(folder: str | os.PathLike[str]) -> Path:
    """Write scikit-learn's 1,797 handwritten digits as 8 x 8 PNG files, a folder per digit.

    Three quarters of each digit are in ``train``, the others in ``test``. The folder is created if
    needed and returned; files that exist are not written again.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.target))
    parts = train_test_split(rows, stratify=digits.target, random_state=0)
    root = Path(folder)
    for part, numbers in zip(("train", "test"), parts, strict=True):
        for number in numbers:
            path = root / part / str(digits.target[number]) / f"{number:04d}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.rint(digits.images[number] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).save(path)
    return root
