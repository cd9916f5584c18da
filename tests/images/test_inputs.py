"""What callers may hand over as images, and the key that each image gets."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featuretl.exceptions import ImageError, InputError
from featuretl.images.inputs import as_images, name_of, read

PATHS = ["a.jpg", "b.jpg", "c.jpg"]


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def encode(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


COLLECTIONS = {
    "list": PATHS,
    "tuple": tuple(PATHS),
    "object array": objects(PATHS),
    "str array": np.array(PATHS),
    "string dtype array": np.array(PATHS, np.dtypes.StringDType()),
    "column of an array": objects(PATHS)[:, None],
    "series": pd.Series(PATHS, dtype=object),
    "string series": pd.Series(PATHS, dtype="string", index=[5, 6, 7]),
    "categorical series": pd.Series(PATHS, dtype="category"),
    "index": pd.Index(PATHS),
    "one-column frame": pd.DataFrame({"path": PATHS}),
}


@pytest.mark.parametrize("X", COLLECTIONS.values(), ids=COLLECTIONS)
def test_collections_of_paths_mean_the_same(X: Any) -> None:
    images = as_images(X, "Owner")
    assert list(images) == PATHS
    assert all(type(image) is str for image in images)


@pytest.mark.parametrize("X", [[], (), np.array([], str), pd.Series([], dtype=object)])
def test_no_images_are_a_collection_too(X: Any) -> None:
    assert len(as_images(X, "Owner")) == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_of_images_is_taken_as_it_is(channels: int) -> None:
    X = np.zeros((2, 4, 5, channels), np.uint8)
    assert as_images(X, "Owner") is X


def test_a_list_may_mix_kinds(photos: list[str], pixels: np.ndarray) -> None:
    data = Path(photos[0]).read_bytes()
    X = [photos[0], Path(photos[0]), data, pixels, Image.fromarray(pixels)]
    images = as_images(objects(X), "Owner")
    keys = [read(image).key for image in images]
    assert len(set(keys[:3])) == 1
    assert keys[3] == keys[4]


SINGLE = ["a.jpg", Path("a.jpg"), b"\xff\xd8", Image.new("RGB", (2, 2))]


@pytest.mark.parametrize("X", SINGLE, ids=lambda X: type(X).__name__)
def test_a_single_image_is_refused_with_the_remedy(X: Any) -> None:
    with pytest.raises(InputError, match=rf"^X of Owner .*{type(X).__name__}.*load_image_folder"):
        as_images(X, "Owner")


REFUSED: dict[str, tuple[Any, str]] = {
    "doubles": (np.zeros((2, 4, 5, 3)), "float64"),
    "floats": (np.zeros((2, 4, 5, 3), np.float32), "float32"),
    "one image": (np.zeros((4, 5, 3), np.uint8), r"\(4, 5, 3\)"),
    "one grey image": (np.zeros((4, 5), np.uint8), r"\(4, 5\)"),
    "a row of paths": (np.array([PATHS]), r"\(1, 3\)"),
    "numbers": (np.arange(3), "int64"),
    "no dimension": (np.array("a.jpg"), r"\(\)"),
    "two columns": (pd.DataFrame({"a": PATHS, "b": PATHS}), r"\(3, 2\)"),
    "None": (None, "NoneType"),
    "a number": (7, "int"),
    "a set": (set(PATHS), "set"),
    "a dict": (dict.fromkeys(PATHS), "dict"),
    "an iterator": (iter(PATHS), "list_iterator"),
}


@pytest.mark.parametrize(("X", "got"), REFUSED.values(), ids=REFUSED)
def test_other_collections_are_refused(X: Any, got: str) -> None:
    with pytest.raises(InputError, match=rf"^X of Owner must be .*got .*{got}"):
        as_images(X, "Owner")


def test_a_deque_is_a_sequence() -> None:
    assert list(as_images(deque(PATHS), "Owner")) == PATHS


# keys


def test_a_file_its_path_and_its_bytes_have_one_key(photos: list[str]) -> None:
    data = Path(photos[0]).read_bytes()
    contents = [read(photos[0]), read(Path(photos[0])), read(data)]
    assert {content.key for content in contents} == {hashlib.sha256(data).digest()}
    for content in contents:
        np.testing.assert_array_equal(content.pixels(), contents[0].pixels())


def test_a_copy_of_a_file_has_its_key(photos: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.gif"
    copy.write_bytes(Path(photos[0]).read_bytes())
    assert read(copy).key == read(photos[0]).key != read(photos[1]).key


def test_images_of_the_same_pixels_have_one_key(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    same = [
        pixels,
        np.asfortranarray(pixels),
        pixels[::-1][::-1],
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        image,
        image.convert("RGBA"),
        Image.open(io.BytesIO(encode(image, "PNG"))),
    ]
    assert len({read(item).key for item in same}) == 1
    assert len(read(pixels).key) == 32


def test_grey_images_of_the_same_pixels_have_one_key(pixels: np.ndarray) -> None:
    grey = pixels[..., 0]
    same = [grey, grey[..., None], np.repeat(grey[..., None], 3, axis=2), Image.fromarray(grey)]
    assert len({read(item).key for item in same}) == 1


def test_the_same_bytes_in_another_shape_have_another_key() -> None:
    flat = np.arange(24, dtype=np.uint8)
    shapes = [(2, 4, 3), (4, 2, 3), (1, 8, 3), (8, 1, 3)]
    assert len({read(flat.reshape(shape)).key for shape in shapes}) == len(shapes)


def test_one_changed_pixel_changes_the_key(pixels: np.ndarray) -> None:
    changed = pixels.copy()
    changed[-1, -1, -1] ^= 1
    assert read(changed).key != read(pixels).key


def test_an_image_in_memory_never_has_the_key_of_its_file(photos: list[str]) -> None:
    content = read(photos[0])
    assert read(content.pixels()).key != content.key


def test_reading_and_hashing_are_timed_for_every_kind_of_image(
    photos: list[str], pixels: np.ndarray
) -> None:
    data = Path(photos[0]).read_bytes()
    for image in (photos[0], data, pixels, Image.fromarray(pixels)):
        stages: list[str] = []
        read(image, lambda name, stages=stages: stages.append(name) or nullcontext())
        assert stages == (["read", "hash"] if image is photos[0] else ["hash"])


def test_only_files_have_a_state(photos: list[str], pixels: np.ndarray) -> None:
    assert read(pixels).state is None
    assert read(Path(photos[0]).read_bytes()).state is None


NO_IMAGES: dict[str, Any] = {
    "None": None,
    "a number": 7,
    "NaN": float("nan"),
    "a bytearray": bytearray(b"\xff\xd8"),
    "a list": ["a.jpg"],
    "a missing file": "missing.jpg",
    "a missing file in numpy": np.str_("missing.jpg"),
    "a NUL in the path": "nul\0.jpg",
    "doubles": np.zeros((4, 5, 3)),
    "booleans": np.zeros((4, 5, 3), bool),
    "two channels": np.zeros((4, 5, 2), np.uint8),
    "channels first": np.zeros((3, 4, 5), np.uint8),
    "an empty array": np.zeros((0, 5, 3), np.uint8),
    "one dimension": np.zeros(5, np.uint8),
    "four dimensions": np.zeros((1, 4, 5, 3), np.uint8),
    "a PIL image of floats": Image.new("F", (2, 2)),
    "a PIL image in Lab": Image.new("LAB", (2, 2)),
    "an empty PIL image": Image.new("RGB", (0, 2)),
}


@pytest.mark.parametrize("item", NO_IMAGES.values(), ids=NO_IMAGES)
def test_an_item_that_is_no_image_is_an_image_error(item: Any) -> None:
    with pytest.raises(ImageError, match=r"."):
        read(item)


def test_a_float_array_is_told_how_to_become_an_image() -> None:
    with pytest.raises(ImageError, match=r"float64; pixels must be uint8 in 0\.\.255"):
        read(np.zeros((4, 5, 3)))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-400]])
def test_a_pil_image_that_was_opened_but_not_loaded_may_fail(
    pixels: np.ndarray, damage: Any
) -> None:
    image = Image.open(io.BytesIO(damage(encode(Image.fromarray(pixels), "PNG"))))
    with pytest.raises(ImageError, match="truncated"):
        read(image)


def test_a_closed_pil_image_is_an_image_error(photos: list[str]) -> None:
    with Image.open(photos[0]) as image:
        pass
    with pytest.raises(ImageError, match=r"."):
        read(image)


def test_bytes_are_decoded_only_when_their_pixels_are_wanted() -> None:
    content = read(b"no image")
    assert content.key == hashlib.sha256(b"no image").digest()
    with pytest.raises(ImageError, match="not an image"):
        content.pixels()


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a\n\x1b[31m\u202e\udcff.jpg", r"a\n\x1b[31m\u202e\udcff.jpg"),
        (Path("photo.jpg"), "photo.jpg"),
        (b"\xff\xd8", "image 3 (bytes)"),
        (np.zeros((2, 2)), "image 3 (ndarray)"),
        (None, "image 3 (NoneType)"),
    ],
)
def test_names_are_safe_to_print(image: Any, name: str) -> None:
    assert name_of(image, 3) == name
