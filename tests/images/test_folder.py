"""load_image_folder: the images of a folder, and the names of its subfolders as classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featuretl import load_image_folder
from featuretl.exceptions import InputError
from featuretl.images.sources import find_images


def test_load_image_folder_agrees_with_find_images(photo_folder: Path, photos: list[str]) -> None:
    bunch, images = load_image_folder(str(photo_folder)), find_images([photo_folder])
    assert bunch.data.dtype == object
    assert bunch.data.tolist() == images.paths == photos
    assert bunch.target.tolist() == images.labels == ["flower"] * 12 + ["temple"] * 12
    assert bunch.target_names == images.class_names == ["flower", "temple"]


def test_load_image_folder_agrees_with_scikit_learn_and_torchvision(photo_folder: Path) -> None:
    load_files = pytest.importorskip("sklearn.datasets").load_files
    theirs = load_files(photo_folder, load_content=False, shuffle=False)
    ours = load_image_folder(photo_folder)
    assert dict(zip(ours.data, ours.target, strict=True)) == dict(
        zip(theirs.filenames, np.array(theirs.target_names)[theirs.target], strict=True)
    )
    folder = pytest.importorskip("torchvision.datasets").ImageFolder(photo_folder)
    numbers = map(folder.class_to_idx.get, ours.target)
    assert list(zip(ours.data, numbers, strict=True)) == folder.samples
    assert ours.target_names == folder.classes


def test_a_bare_folder_has_no_labels(tmp_path: Path, make: Any, relative: Any) -> None:
    make(tmp_path, "2.jpg", "10.jpg", "1.jpg")
    images = find_images([tmp_path])
    assert relative(images, tmp_path) == ["1.jpg", "10.jpg", "2.jpg"]
    assert images.labels is images.class_names is None
    bunch = load_image_folder(tmp_path)
    assert bunch.target is None
    assert bunch.target_names == []


def test_images_beside_class_folders(
    tmp_path: Path, make: Any, assert_one_printable_sentence: Any
) -> None:
    make(tmp_path, "cat/1.jpg", "stray.jpg")
    with pytest.raises(InputError, match=r"stray\.jpg.* class") as caught:
        load_image_folder(tmp_path)
    assert_one_printable_sentence(caught.value)
    images = find_images([tmp_path])  # the command line has images without a label
    assert images.labels == ["cat", None]


def test_a_class_means_the_same_in_a_folder_that_lacks_another_one(
    tmp_path: Path, make: Any
) -> None:
    make(tmp_path, "train/ant/1.jpg", "train/bee/2.jpg", "train/cow/3.jpg")
    make(tmp_path, "val/bee/4.jpg", "val/cow/5.jpg")
    train, val = (load_image_folder(tmp_path / part) for part in ("train", "val"))
    assert train.target.tolist() == ["ant", "bee", "cow"]
    assert val.target.tolist() == val.target_names == ["bee", "cow"]
    assert val.target.dtype.kind == "U"


@pytest.mark.parametrize("name", ["missing", "file.jpg", "nul\0"])
def test_load_image_folder_needs_a_folder(tmp_path: Path, name: str, make: Any) -> None:
    make(tmp_path, "file.jpg")
    with pytest.raises(InputError, match="is not a folder"):
        load_image_folder(f"{tmp_path}/{name}")


def test_a_folder_prints_in_five_lines_and_splits_into_data_and_target(photo_folder):
    photos = load_image_folder(photo_folder)
    assert repr(photos).splitlines()[1:2] == ["  data: 24 images"]
    assert "flower: 12, temple: 12" in repr(photos)
    assert len(repr(photos).splitlines()) == 5
    X, y = load_image_folder(photo_folder, return_X_y=True)
    np.testing.assert_array_equal(X, photos.data)
    np.testing.assert_array_equal(y, photos.target)
