"""Data sets of torchvision and of Hugging Face as images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from featuretl import ImageEmbedder, evaluate_model, explain, load_image_folder, predict_to_file
from featuretl.exceptions import InputError
from featuretl.images.inputs import as_images, read

Y = ["flower"] * 12 + ["temple"] * 12


@pytest.fixture
def folder(photo_folder: Path) -> ImageFolder:
    def never(path: str) -> None:
        raise AssertionError("the folder decodes")

    return ImageFolder(str(photo_folder), loader=never)


@pytest.fixture
def dataset(photos: list[str]) -> Any:
    """Half of the images are bytes, the others paths."""
    rows = [
        {"bytes": Path(path).read_bytes(), "path": None} if i % 2 else {"bytes": None, "path": path}
        for i, path in enumerate(photos)
    ]
    table = datasets.Dataset.from_dict({"photo": rows, "label": Y})
    return table.cast_column("photo", datasets.Image())


def test_an_image_folder_is_its_paths(folder: ImageFolder, photos: list[str]) -> None:
    assert as_images(folder, "Owner") == photos
    assert as_images(Subset(Subset(folder, [5, 3, 1]), [2, 0]), "Owner") == [photos[1], photos[5]]


def test_a_dataset_is_its_undecoded_images(dataset: Any, photos: list[str]) -> None:
    images = as_images(dataset.with_format("torch"), "Owner")
    assert [read(image).key for image in images] == [read(path).key for path in photos]


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda d: datasets.DatasetDict(train=d), r"DatasetDict; .*X\['train'\]"),
        (lambda d: d.to_iterable_dataset(), r"IterableDataset .*X\['photo'\]"),
        (
            lambda d: datasets.concatenate_datasets(
                [d, d.select_columns(["photo"]).rename_column("photo", "more")], axis=1
            ),
            r"photo, more; .*X\['photo'\]",
        ),
        (lambda d: d.select_columns(["label"]), "columns label"),
        (lambda d: d[:2], r"dict; .*X\['photo'\]"),
        (lambda d: DataLoader(d), r"DataLoader; .*for images, _ in X"),
        (lambda d: TensorDataset(torch.zeros(2, 3, 8, 8)), r"TensorDataset; .*image, _ in X"),
    ],
)
def test_other_data_sets_are_refused_with_the_line_to_write(
    make: Any, got: str, dataset: Any
) -> None:
    with pytest.raises(InputError, match=f"^X of Owner must be images; got .*{got}"):
        as_images(make(dataset), "Owner")


def test_public_functions_take_data_sets_and_tensors(
    folder: ImageFolder, dataset: Any, photos: list[str], tmp_path: Path
) -> None:
    embedder = ImageEmbedder("test_resnet", weights="random")
    model = make_pipeline(embedder, LogisticRegression()).fit(photos, Y)
    pixels = np.stack([read(path).pixels() for path in photos])
    expected = model.predict_proba(photos)
    for X in (folder, dataset, dataset["photo"], torch.from_numpy(pixels).movedim(-1, 1)):
        np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)
        assert evaluate_model(model, X, Y).scores["accuracy"] == model.score(photos, Y)
        assert predict_to_file(model, X, tmp_path / "out.csv").failed == 0
        assert len(explain(model, X)) == 24


def test_a_folder_with_its_labels_is_named_by_its_part(photo_folder: Path) -> None:
    with pytest.raises(InputError, match=r"X\['data'\]"):
        as_images(load_image_folder(photo_folder), "Owner")
