"""HEIC files: pixels by the decode policy, hostile bytes, and what is said without the extra."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl import ImageEmbedder, load_image_folder
from featuretl.exceptions import ImageError
from featuretl.images.decode import decode
from featuretl.images.heif import is_heif
from featuretl.images.isolated import IsolatedDecoder

PHOTO = load_sample_images().images[0][120:184, 200:296]  # 64 x 96 pixels
SMALL = Image.fromarray(PHOTO)


def heic(image: Image.Image = SMALL, **options: Any) -> bytes:
    container = pillow_heif.from_pillow(image)
    for more in options.pop("append", ()):
        container.add_from_pillow(more)
    buffer = io.BytesIO()
    container.save(buffer, quality=95, **options)
    return buffer.getvalue()


def with_claim(data: bytes, width: int, height: int, *, long: bool = False) -> bytes:
    """Return a HEIC file whose one box of sizes claims others, as a box of 32 or 64 bits."""
    at = data.index(b"ispe") - 4
    sides = width.to_bytes(4) + height.to_bytes(4)
    if not long:
        return data[: at + 12] + sides + data[at + 20 :]
    box = b"\0\0\0\1ispe" + (28).to_bytes(8) + bytes(4) + sides
    return data[:at] + box + data[at + 20 :]


def assert_close(pixels: np.ndarray, expected: np.ndarray) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("tile_size", [0, 64])
def test_a_photograph_is_almost_the_same(tile_size: int) -> None:
    assert_close(decode(heic(tile_size=tile_size)), PHOTO)


@pytest.mark.parametrize("number", range(1, 9))
def test_the_orientation_is_applied_once(number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    jpeg, data = io.BytesIO(), io.BytesIO()
    SMALL.save(jpeg, "JPEG", exif=exif, quality=95)
    options = {"exif": exif.tobytes(), "quality": 95}
    pillow_heif.encode("RGB", SMALL.size, SMALL.tobytes(), data, **options)
    assert_close(decode(data.getvalue()), decode(jpeg.getvalue()))


def test_transparency_is_white_and_grey_is_rgb() -> None:
    hidden = SMALL.copy()
    hidden.putalpha(0)
    assert (decode(heic(hidden)) == 255).all()
    grey = SMALL.convert("L")
    assert_close(decode(heic(grey)), np.asarray(grey.convert("RGB")))


def test_ten_bits_are_scaled_to_eight() -> None:
    deep = pillow_heif.from_bytes("RGB;16", SMALL.size, (PHOTO.astype(np.uint16) * 257).tobytes())
    buffer = io.BytesIO()
    deep.save(buffer, quality=95)
    assert pillow_heif.open_heif(buffer).info["bit_depth"] == 10
    assert_close(decode(buffer.getvalue()), PHOTO)


def test_of_several_images_the_primary_one_counts() -> None:
    others = [Image.new("RGB", (64, 64), colour) for colour in ("lime", "blue")]
    data = heic(SMALL, append=others, primary_index=1)
    assert_close(decode(data), np.asarray(others[0]))


def test_an_isolated_decoder_gives_the_same_pixels() -> None:
    data = heic()
    with IsolatedDecoder(seconds=60) as isolated_decode:
        np.testing.assert_array_equal(isolated_decode(data), decode(data))


def test_avif_is_not_taken_for_heif() -> None:
    buffer = io.BytesIO()
    SMALL.save(buffer, "AVIF")
    data = buffer.getvalue()
    assert not is_heif(data)
    assert not is_heif(data[:8] + b"mif1" + data[12:])
    assert is_heif(heic()[:8] + b"mif1" + heic()[12:])


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(part: float) -> None:
    data = heic()
    with pytest.raises(ImageError, match=r"."):
        decode(data[: int(len(data) * part)])


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("side", [10_000, 2**32 - 1])
def test_a_huge_claim_is_refused_before_libheif_sees_it(
    side: int, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=f"{side} x {side} pixels, over the limit"):
        decode(with_claim(heic(), side, side, long=long))


def test_a_claim_smaller_than_the_pixels_is_refused() -> None:
    data = heic(Image.new("RGB", (1024, 1024)))
    with pytest.raises(ImageError, match=r"Security limit|does not have the size"):
        decode(with_claim(data, 64, 64))


def test_a_libheif_that_does_not_check_sizes_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif, "libheif_version", lambda: "1.21.2")
    with pytest.raises(ImageError, match=r"pip install -U 'featuretl\[heif\]'"):
        decode(heic())


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_mutated_bytes_give_pixels_or_an_image_error(data: st.DataObject) -> None:
    content = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([500, len(content)]))
        at = data.draw(st.integers(0, end - 1))
        content[at : at + 4] = data.draw(st.binary(max_size=4))
    try:
        pixels = decode(bytes(content))
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3


SEED = heic()


@pytest.fixture
def iphone(tmp_path: Path) -> Path:
    """24 HEIC files with the suffixes that cameras write, and one PNG."""
    for number, suffix in enumerate([".heic", ".HEIC", ".heif", ".hif"] * 6):
        (tmp_path / f"IMG_{number:02d}{suffix}").write_bytes(SEED)
    SMALL.save(tmp_path / "a.png")
    return tmp_path


def test_photographs_in_a_folder_are_found(iphone: Path) -> None:
    photos = load_image_folder(iphone)
    rows = ImageEmbedder("test_resnet", weights="random", cache=None).transform(photos.data)
    assert rows.shape[0] == 25
    assert np.isfinite(rows).all()


def test_without_the_extra_the_files_are_counted(
    iphone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photos = load_image_folder(iphone)
    with pytest.raises(ImageError, match=r"24 of 25 .* 24 in all: a HEIC .*featuretl\[heif\]"):
        ImageEmbedder("test_resnet", weights="random").transform(photos.data)
    options = ["--backbone", "test_resnet", "--weights", "random"]
    done = CliRunner().invoke(cli, ["extract", str(iphone), *options])
    assert done.exit_code == 1
    assert "featuretl[heif]" in done.stderr
    assert "24 in all" in done.stderr


def test_jpeg_xl_is_named() -> None:
    for data in (b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl "):
        with pytest.raises(ImageError, match="JPEG XL"):
            decode(data)
