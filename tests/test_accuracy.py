"""Held-out accuracy on real images with the packaged weights and logistic regression."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from featuretl_cli.digits import write_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featuretl import ImageEmbedder, load_image_folder
from featuretl.exceptions import FeatureTLWarning


def linear_probe(**parameters):
    head = LogisticRegression(max_iter=1000)
    return make_pipeline(ImageEmbedder(**parameters), StandardScaler(), head)


@pytest.mark.slow
def test_digits(tmp_path):
    train, test = (load_image_folder(write_digits(tmp_path) / part) for part in ("train", "test"))
    assert (len(train.data), len(test.data)) == (1347, 450)
    accuracy = linear_probe().fit(train.data, train.target).score(test.data, test.target)
    print(f"digits, held out: {accuracy:.3f}")
    assert accuracy >= 0.95


def test_hymenoptera(shared_data, shared_cache):
    train, val = (
        load_image_folder(shared_data / "hymenoptera" / part) for part in ("train", "val")
    )
    pipe = linear_probe(cache=shared_cache).fit(train.data, train.target)
    accuracy = pipe.score(val.data, val.target)
    print(f"hymenoptera, val: {accuracy:.3f}")
    assert accuracy >= 0.92


def signer_groups(paths) -> np.ndarray:
    """Return the signer (n,) of each photograph.

    Consecutive file numbers run through the digits of one signer, about ten photographs; a new
    signer starts where the digit decreases.
    """
    numbers = np.array([int(re.search(r"(\d+)", Path(path).stem)[1]) for path in paths])
    digits = np.array([int(Path(path).parent.name) for path in paths])
    groups = np.empty(len(paths), int)
    signer, last = 0, -1
    for i in np.argsort(numbers):
        signer += digits[i] < last
        last = digits[i]
        groups[i] = signer
    return groups


@pytest.mark.slow
def test_sign_digits_by_signer(shared_data, shared_cache):
    photos = load_image_folder(shared_data / "sign-digits")
    groups = signer_groups(photos.data)
    assert 150 < len(np.unique(groups)) < 300
    scores = cross_val_score(
        linear_probe(cache=shared_cache),
        photos.data,
        photos.target,
        groups=groups,
        cv=GroupKFold(5),
    )
    print(f"sign-digits, 5 folds by signer: {scores.mean():.3f} +- {scores.std():.3f}")
    assert scores.mean() >= 0.92


@pytest.mark.filterwarnings(f"default::{FeatureTLWarning.__module__}.{FeatureTLWarning.__name__}")
def test_odd_images_are_rows_or_named_failures(shared_data):
    paths = sorted(
        str(path) for path in (shared_data / "odd-images").rglob("*.*") if path.is_file()
    )
    with pytest.warns(FeatureTLWarning, match=r"6 of 32 images"):
        rows = ImageEmbedder(on_error="nan").transform(paths)
    upright = [i for i, path in enumerate(paths) if "Landscape_" in path]
    assert len(upright) == 8
    assert np.corrcoef(rows[upright]).min() > 0.8  # one photograph in eight orientations
    failed = {Path(paths[i]).name for i in np.flatnonzero(np.isnan(rows).any(axis=1))}
    assert failed == {
        "broken.png",
        "broken_data_stream.png",
        "decompression_bomb.gif",
        "hopper.Lab.tif",
        "truncated_image.png",
        "truncated_jpeg.jpg",
    }
