"""The demonstration: handwritten digits as image files, embedded, and a linear head on top."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from featuretl._engine import Progress
from featuretl.extraction import Extraction, extract
from featuretl.images.sources import load_image_folder
from featuretl.store.store import EmbeddingStore


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration measured.

    Attributes
    ----------
    extraction : Extraction
    n_train, n_test : int
        Images that the head was trained on, and those kept out.
    accuracy : float
        On the images kept out.
    report : dict
        scikit-learn's ``classification_report(output_dict=True)`` of the images kept out.
    """

    extraction: Extraction
    n_train: int
    n_test: int
    accuracy: float
    report: dict[str, dict[str, float]]


def write_digits(folder: str | os.PathLike[str]) -> Path:
    """Write scikit-learn's 1,797 handwritten digits as 8 x 8 PNG files into folders 0 to 9.

    Files that are there already are left alone.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    root = Path(folder)
    for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = root / str(digit) / f"{number:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(path)
    return root


def run_demo(
    folder: str | os.PathLike[str],
    *,
    store: EmbeddingStore | None,
    progress: Progress | None = None,
) -> DemoResult:
    """Write the digits, embed them, train a linear head on three quarters and test it on the rest.

    Parameters
    ----------
    folder : path
        Where the images go.
    store : EmbeddingStore or None
        Where the embeddings go.
    progress : callable, optional
        See `extract`.

    Returns
    -------
    result : DemoResult
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, classification_report
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    photos = load_image_folder(write_digits(folder))
    extraction = extract(photos.data, store=store, progress=progress)
    X_train, X_test, y_train, y_test = train_test_split(
        extraction.to_numpy(), photos.target, stratify=photos.target, random_state=0
    )
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X_train, y_train)
    predicted = head.predict(X_test)
    report = classification_report(
        y_test, predicted, target_names=photos.target_names, output_dict=True
    )
    accuracy = float(accuracy_score(y_test, predicted))
    return DemoResult(extraction, len(y_train), len(y_test), accuracy, report)
