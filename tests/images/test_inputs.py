"""What callers may hand over as images, and the key that each image gets."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import Bunch

from featuretl import ImageEmbedder
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
    "doubles in 0..255": (np.full((2, 4, 5, 3), 255.0), r"float64 in 255\.\.255.*round"),
    "normalized floats": (np.linspace(-2, 2, 120).reshape(2, 4, 5, 3), r"-2\.\.2.*undo"),
    "NaN": (np.full((2, 4, 5, 3), np.nan), r"nan\.\.nan.*nan_to_num"),
    "overshoot": (np.linspace(-0.01, 1.02, 120).reshape(2, 4, 5, 3), r"clip\(0, 1\)"),
    "an infinity": (np.full((2, 4, 5), np.inf, np.float32), r"inf\.\.inf"),
    "integers": (np.zeros((2, 4, 5, 3), np.int64), "int64"),
    "booleans": (np.zeros((2, 4, 5), bool), "bool"),
    "one image of floats": (np.zeros((4, 5, 3)), r"\(4, 5, 3\).*X\[None\]"),
    "one image": (np.zeros((4, 5, 3), np.uint8), r"\(4, 5, 3\)"),
    "one grey image": (np.zeros((4, 5), np.uint8), r"\(4, 5\)"),
    "a row of paths": (np.array([PATHS]), r"\(1, 3\)"),
    "numbers": (np.arange(3), "int64"),
    "no dimension": (np.array("a.jpg"), r"\(\)"),
    "two columns": (pd.DataFrame({"a": PATHS, "b": PATHS}), r"\(3, 2\).*X\[\['a'\]\]"),
    "None": (None, "NoneType"),
    "a number": (7, "int"),
    "a set": (set(PATHS), "set"),
    "a dict": (dict.fromkeys(PATHS), "dict"),
    "a Bunch": (Bunch(data=PATHS, target=PATHS), r"Bunch.*X\['data'\]"),
    "an iterator of images": (iter([Image.new("RGB", (2, 2))]), r"Image; pass list\(X\)"),
    "an endless iterator of images": (itertools.repeat(b"x"), r"bytes; pass list\(X\)"),
}


@pytest.mark.parametrize(("X", "got"), REFUSED.values(), ids=REFUSED)
def test_other_collections_are_refused(X: Any, got: str) -> None:
    with pytest.raises(InputError, match=rf"^X of Owner must be .*got .*{got}"):
        as_images(X, "Owner")


def test_iterators_of_paths_are_read_once() -> None:
    for X in (iter(PATHS), (path for path in PATHS), map(str, PATHS)):
        assert as_images(X, "Owner") == PATHS
    with pytest.raises(InputError, match="an iterator at its end"):
        as_images(Path("no-such-folder").glob("*.jpg"), "Owner")


def test_a_pipeline_reads_an_iterator_of_paths_once(photos: list[str]) -> None:
    embedder = ImageEmbedder("test_resnet", weights="random")
    expected = embedder.transform(photos)
    np.testing.assert_array_equal(embedder.fit_transform(iter(photos)), expected)
    pipe = make_pipeline(embedder, LogisticRegression())
    pipe.fit(iter(photos), np.repeat(["flower", "temple"], 12))
    assert len(pipe.predict(map(Path, photos))) == 24


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
    "doubles in 0..255": np.full((4, 5, 3), 255.0),
    "an array of NaN": np.full((4, 5), np.nan),
    "a pair": (np.zeros((4, 5, 3)), 1),
    "booleans": np.zeros((4, 5, 3), bool),
    "two channels": np.zeros((6, 5, 2), np.uint8),
    "channels in the middle": np.zeros((6, 3, 5), np.uint8),
    "a huge view": np.broadcast_to(np.float32(0), (100_000, 100_000, 3)),
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
    with pytest.raises(ImageError, match=r"float64 in 7\.\.7; .*write X\.round\(\)\.astype"):
        read(np.full((4, 5, 3), 7.0))


def tensors(images: np.ndarray) -> dict[str, Any]:
    tensor = torch.from_numpy(images)
    first = tensor.movedim(-1, 1)
    floats = first.float() / 255
    return {
        "tensor": tensor,
        "tensor, channels first": first,
        "tensor of floats": floats,
        "tensor of halves": floats.half(),
        "tensor of bfloat16": floats.bfloat16(),
        "tensor with a gradient": floats.clone().requires_grad_(),
        "list of tensors": list(first),
        "object array of tensors": objects(list(floats)),
    }


def arrays(images: np.ndarray) -> dict[str, Any]:
    first = np.moveaxis(images, -1, 1)
    return {
        "array": images,
        "channels first": first,
        "floats": images.astype(np.float32) / np.float32(255),
        "doubles, channels first": first / 255,
        "halves": (images / 255).astype(np.float16),
        "big-endian floats": (images / 255).astype(">f4"),
        "list of floats": list(images / 255),
    }


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_tensors_of_the_same_pixels_have_the_same_keys(channels: int) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(2 * channels).reshape(2, 16, 16, channels)
    every[..., -1] = 255 - every[..., -1]
    expected = [read(image).key for image in every]
    forms = {**arrays(every), **tensors(every)}
    if channels == 1:
        grey = every[..., 0]
        forms |= {
            f"grey {name}": X[..., 0] for name, X in arrays(every).items() if name == "floats"
        }
        forms |= {
            "grey": grey,
            "grey tensor": torch.from_numpy(grey),
            "grey list": list(grey / 255),
        }
    for name, X in forms.items():
        images = as_images(X, "Owner")
        assert [read(image).key for image in images] == expected, name
        part = as_images(as_images(X, "Owner")[:1], "Owner")  # estimators pass slices on
        assert [read(image).key for image in part] == expected[:1], name


@pytest.mark.parametrize(
    ("X", "got"),
    [
        (torch.zeros(9, 3, 8, 3), "channels may be first or last"),
        (torch.zeros(9, 3, 8, 4, dtype=torch.uint8), "channels may be first or last"),
        (torch.zeros(3, 8, 8), r"X\[None\] for one image"),
        (torch.zeros(8, 8, 3), r"X\[None\] for one image"),
        (torch.full((2, 3, 8, 8), -1.0), "undo the normalization"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "int64"),
        (torch.zeros(2, 3, 8, 8, device="meta"), "meta"),
        (torch.eye(8).to_sparse(), "to_dense"),
        (torch.zeros(2, 64), r"\(2, 64\)"),
    ],
)
def test_tensors_that_may_mean_something_else_are_refused(X: torch.Tensor, got: str) -> None:
    with pytest.raises(InputError, match=rf"^X of Owner must be .*got .*{got}"):
        as_images(X, "Owner")


def test_an_array_that_can_be_read_both_ways_has_its_channels_last() -> None:
    for dtype in (np.uint8, np.float32):
        (image,) = as_images(np.ones((1, 3, 8, 4), dtype), "Owner")
        assert read(image).pixels().shape == (3, 8, 3)


@pytest.mark.parametrize("name", ["tensor of floats", "object array of tensors", "list of tensors"])
def test_scikit_learn_slices_tensors(name: str, photos: list[str]) -> None:
    images = np.stack([read(path).pixels() for path in photos])
    y = np.repeat(["flower", "temple"], 12)
    pipe = make_pipeline(
        ImageEmbedder("test_resnet", weights="random", cache=None), LogisticRegression()
    )
    expected = cross_val_score(pipe, images, y, cv=3)
    X = tensors(images)[name]
    np.testing.assert_array_equal(cross_val_score(pipe, X, y, cv=3, error_score="raise"), expected)


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
