"""Images for the examples, made of scikit-learn's handwritten digits: nothing is downloaded."""

from __future__ import annotations

import numpy as np
from featuretl_cli.digits import write_digits
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = "featuretl-demo/digits"


def digits(n: int = 240) -> list[list]:
    """Return paths to train on, paths held out (a third), and the digit on each of both."""
    paths = sorted(write_digits(FOLDER).glob("*/*/*.png"), key=lambda path: path.name)[:n]
    names = [path.parent.name for path in paths]
    return train_test_split(list(map(str, paths)), names, test_size=1 / 3, random_state=0)


def pairs(n: int = 240) -> list[list]:
    """Return images of two digits side by side, (8, 16), as `digits` does; both digits are labels."""
    images, target = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).integers(len(target), size=(n, 2))
    pixels = np.uint8(images.reshape(-1, 8, 8) * 255 / 16)
    X = [np.hstack(pixels[pair]) for pair in rows]
    tags = [{str(digit) for digit in target[pair]} for pair in rows]
    return train_test_split(X, tags, test_size=1 / 3, random_state=0)


def turned(n: int = 240) -> list[list]:
    """Return sixes and fours, turned by up to 60 degrees, as `digits` does, and the angles."""
    folder = write_digits(FOLDER)
    paths = [path for digit in "46" for path in sorted(folder.glob(f"*/{digit}/*.png"))]
    angles = np.random.default_rng(0).uniform(-60, 60, n)
    upright = [Image.open(path).resize((64, 64), Image.Resampling.BICUBIC) for path in paths[:n]]
    X = [image.rotate(angle) for image, angle in zip(upright, angles, strict=True)]
    return train_test_split(X, angles, test_size=1 / 3, random_state=0)
