"""The decode policy, row by row: golden pixels, hostile bytes, and files that are no files."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.EpsImagePlugin
import PIL.ImageFile
import pytest
from fuzz import mutated_images_give_pixels_or_an_image_error
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images

from featuretl.exceptions import ImageError
from featuretl.images import decode as module
from featuretl.images.decode import decode, is_image_name, read_file, rgb_from_array, rgb_from_pil
from featuretl.images.inputs import read

PHOTO = load_sample_images().images[0][120:184, 200:296]  # 64 x 96 pixels of a real photograph
SIXTEEN_BITS = [0, 128, 129, 255, 257, 0x80FF, 0xFF00, 0xFFFF]
WHITE = [255, 255, 255]


def encode(pixels: Any, format: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, rows: list[bytes], **chunks: bytes
) -> bytes:
    """Return a PNG made by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header)] + [(name.encode(), value) for name, value in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(value)) + name + value + struct.pack(">I", zlib.crc32(name + value))
        for name, value in [*parts, (b"IDAT", data), (b"IEND", b"")]
    )


def assert_close(pixels: np.ndarray, expected: np.ndarray, mean: float = 6.0) -> None:
    """Equal except for lossy compression."""
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected.astype(int)).mean() < mean


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formats of the images whose pixels were decoded."""
    loads: list[str] = []
    load = PIL.ImageFile.ImageFile.load

    def record(image: Any) -> Any:
        loads.append(image.format)
        return load(image)

    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", record)
    return loads


# formats


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_same_pixels(format: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(encode(PHOTO, format, **options)), PHOTO)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_give_almost_the_same_pixels(format: str) -> None:
    assert_close(decode(encode(PHOTO, format, quality=95)), PHOTO)


def test_gif_gives_its_palette_colours() -> None:
    few = Image.fromarray(PHOTO).quantize(64)
    np.testing.assert_array_equal(decode(encode(few, "GIF")), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize("name", ["photo.jpg", "photo.gif", "photo.txt", "photo"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encode(PHOTO, "PNG"))
    np.testing.assert_array_equal(read(tmp_path / name).pixels(), PHOTO)


NOT_IMAGES = {
    "empty": b"",
    "one byte": b"\xff",
    "text": b"this is not an image\n" * 50,
    "html": b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "eps": encode(PHOTO, "EPS"),
    "ico": encode(PHOTO, "ICO"),
    "pcx": encode(PHOTO, "PCX"),
    "jpeg 2000": encode(PHOTO, "JPEG2000"),
    "pdf": encode(PHOTO, "PDF"),
    "zip": b"PK\x03\x04" + bytes(100),
    "npy": b"\x93NUMPY\x01\x00" + bytes(100),
    "jpeg header only": b"\xff\xd8\xff\xe0\x00\x10JFIF\0",
    "png signature only": b"\x89PNG\r\n\x1a\n",
    "png without pixels": png(4, 4, 8, 2, [], IDAT=b"")[:33],
    "png of no width": png(0, 4, 8, 2, [b""] * 4),
    "ppm of no height": b"P6 4 0 255\n",
    "ppm without pixels": b"P6 4 4 255\n",
}


@pytest.mark.parametrize("data", NOT_IMAGES.values(), ids=NOT_IMAGES)
def test_what_is_no_image_is_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript: list[str] = []
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *a, **k: ghostscript.append(""))
    with pytest.raises(ImageError, match=r"."):
        decode(data)
    assert not ghostscript


# orientation

# What a stored image must have been for a viewer that obeys the tag to show `upright`.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def oriented(number: int, format: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encode(np.ascontiguousarray(STORED[number](PHOTO)), format, exif=exif, **options)


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation_is_applied_exactly(
    number: int, format: str, options: dict[str, Any]
) -> None:
    np.testing.assert_array_equal(decode(oriented(number, format, **options)), PHOTO)


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_exif_orientation_is_applied_to_lossy_formats(number: int, format: str) -> None:
    assert_close(decode(oriented(number, format, quality=95)), PHOTO)


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_orientation_is_applied_once(number: int, compression: str | None) -> None:
    data = oriented(number, "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(data), PHOTO)


def test_orientation_is_applied_to_a_pil_image_that_was_loaded_already() -> None:
    image = Image.open(io.BytesIO(oriented(6, "PNG")))
    image.load()
    np.testing.assert_array_equal(rgb_from_pil(image), PHOTO)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage" * 9, b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_a_corrupt_exif_block_is_ignored(exif: bytes) -> None:
    plain = decode(encode(PHOTO, "JPEG"))
    np.testing.assert_array_equal(decode(encode(PHOTO, "JPEG", exif=exif)), plain)


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    np.testing.assert_array_equal(decode(encode(PHOTO, "PNG", exif=exif)), PHOTO)


# transparency


def hidden(mode: str) -> Image.Image:
    """The photograph, all of it transparent."""
    image = Image.fromarray(PHOTO).convert(mode)
    image.putalpha(0)
    return image


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("RGBA", "TGA", {}),
        ("RGBA", "TIFF", {}),
        ("RGBA", "WEBP", {"lossless": True, "exact": True}),
        ("RGBA", "WEBP", {}),
        ("RGBA", "AVIF", {}),
    ],
)
def test_colours_under_full_transparency_never_show(
    mode: str, format: str, options: dict[str, Any]
) -> None:
    assert (decode(encode(hidden(mode), format, **options)) == 255).all()


TRANSPARENCY = {
    "rgba": (png(3, 1, 8, 6, [bytes([9, 8, 7, 0, 0, 0, 255, 128, 1, 2, 3, 255])]), [WHITE, [127, 127, 255], [1, 2, 3]]),
    "grey + alpha": (png(2, 1, 8, 4, [bytes([50, 0, 60, 255])]), [WHITE, [60] * 3]),
    "palette alpha": (
        png(3, 1, 8, 3, [bytes([0, 1, 2])], PLTE=bytes([255, 0, 0, 0, 0, 255, 1, 2, 3]), tRNS=bytes([0, 128])),
        [WHITE, [127, 127, 255], [1, 2, 3]],
    ),
    "2-bit palette alpha": (
        png(2, 1, 2, 3, [b"\x10"], PLTE=bytes([255, 0, 0, 0, 0, 255]), tRNS=bytes([255, 0])),
        [[255, 0, 0], WHITE],
    ),
    "grey tRNS": (png(2, 1, 8, 0, [bytes([7, 9])], tRNS=b"\0\7"), [WHITE, [9] * 3]),
    "1-bit grey tRNS of black": (png(2, 1, 1, 0, [b"\x40"], tRNS=b"\0\0"), [WHITE, WHITE]),
    "1-bit grey tRNS of white": (png(2, 1, 1, 0, [b"\x40"], tRNS=b"\0\1"), [[0] * 3, WHITE]),
    "2-bit grey tRNS": (png(4, 1, 2, 0, [b"\x1b"], tRNS=b"\0\1"), [[0] * 3, WHITE, [170] * 3, WHITE]),
    "4-bit grey tRNS": (png(2, 1, 4, 0, [b"\x3c"], tRNS=b"\0\3"), [WHITE, [204] * 3]),
    "16-bit grey tRNS": (
        png(2, 1, 16, 0, [struct.pack(">2H", 1000, 5000)], tRNS=struct.pack(">H", 1000)),
        [WHITE, [19] * 3],
    ),
    "rgb tRNS": (png(2, 1, 8, 2, [bytes([10, 20, 30, 40, 50, 60])], tRNS=b"\0\x0a\0\x14\0\x1e"), [WHITE, [40, 50, 60]]),
    "16-bit rgb tRNS": (
        png(2, 1, 16, 2, [struct.pack(">6H", 1000, 2000, 3000, 257, 514, 771)], tRNS=struct.pack(">3H", 1000, 2000, 3000)),
        [WHITE, [1, 2, 3]],
    ),
    "16-bit rgba": (
        png(2, 1, 16, 6, [struct.pack(">8H", 1, 2, 3, 0, 257, 514, 771, 0xFFFF)]),
        [WHITE, [1, 2, 3]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), TRANSPARENCY.values(), ids=TRANSPARENCY)
def test_transparency_is_composited_on_white(data: bytes, expected: list[list[int]]) -> None:
    assert decode(data)[0].tolist() == expected


def test_gif_transparency_is_composited_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decode(encode(image, "GIF", transparency=0))[0].tolist() == [WHITE, [0, 0, 255]]


def test_arrays_with_alpha_follow_the_same_policy() -> None:
    rgba = np.array([[[9, 8, 7, 0], [0, 0, 255, 128]]], np.uint8)
    assert rgb_from_array(rgba)[0].tolist() == [WHITE, [127, 127, 255]]


# depth and colour


def grey_16_bits(values: list[int]) -> dict[str, bytes]:
    samples = struct.pack(f">{len(values)}H", *values)
    return {
        "png": png(len(values), 1, 16, 0, [samples]),
        "pgm": b"P5 %d 1 65535\n" % len(values) + samples,
        "tiff": encode(np.array([values], np.uint16), "TIFF"),
    }


@pytest.mark.parametrize("name", ["png", "pgm", "tiff"])
def test_16_bit_grey_is_scaled_by_257(name: str) -> None:
    data = grey_16_bits(SIXTEEN_BITS)[name]
    expected = [[round(value / 257)] * 3 for value in SIXTEEN_BITS]
    assert decode(data)[0].tolist() == expected


@pytest.mark.parametrize("name", ["png", "pgm", "tiff"])
def test_16_bit_grey_is_not_stretched_to_its_own_range(name: str) -> None:
    assert decode(grey_16_bits([0, 257, 514])[name])[0, :, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["rgb png", "rgba png", "grey + alpha png", "ppm"])
def test_16_bit_colour_is_its_high_byte_but_scaled_in_ppm(name: str) -> None:
    n = len(SIXTEEN_BITS)
    rgb = b"".join(struct.pack(">3H", v, v, v) for v in SIXTEEN_BITS)
    data = {
        "rgb png": png(n, 1, 16, 2, [rgb]),
        "rgba png": png(n, 1, 16, 6, [b"".join(struct.pack(">4H", v, v, v, 65535) for v in SIXTEEN_BITS)]),
        "grey + alpha png": png(n, 1, 16, 4, [b"".join(struct.pack(">2H", v, 65535) for v in SIXTEEN_BITS)]),
        "ppm": b"P6 %d 1 65535\n" % n + rgb,
    }[name]  # fmt: skip
    scaled = [round(value / 257) if name == "ppm" else value >> 8 for value in SIXTEEN_BITS]
    assert decode(data)[0].tolist() == [[value] * 3 for value in scaled]


def test_grey_one_bit_and_palette_become_rgb() -> None:
    grey = Image.fromarray(PHOTO).convert("L")
    np.testing.assert_array_equal(
        decode(encode(grey, "PNG")), np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    )
    assert decode(encode(grey.point([0] * 128 + [255] * 128, "1"), "PNG")).max() == 255
    palette = Image.fromarray(PHOTO).quantize(16)
    np.testing.assert_array_equal(
        decode(encode(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [
        ((0, 0, 0, 0), WHITE),
        ((0, 255, 255, 0), [255, 0, 0]),
        ((255, 0, 255, 0), [0, 255, 0]),
        ((0, 0, 0, 255), [0, 0, 0]),
    ],
)
def test_cmyk_becomes_rgb_without_a_profile(
    format: str, cmyk: tuple[int, ...], rgb: list[int]
) -> None:
    image = Image.new("CMYK", (16, 16), cmyk)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for options in ({}, {"icc_profile": profile}):
        assert decode(encode(image, format, **options))[8, 8].tolist() == rgb


def test_an_embedded_profile_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    np.testing.assert_array_equal(decode(encode(PHOTO, "PNG", icc_profile=profile)), PHOTO)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (encode(np.full((4, 4), 0.5, np.float32), "TIFF"), "F pixels"),
        (b"Pf 1 1\n-1.0\n" + struct.pack("<f", 0.5), "F pixels"),
        (encode(Image.new("LAB", (4, 4)), "TIFF"), "LAB pixels"),
        (encode(np.full((4, 4), 70_000, np.int32), "TIFF"), "beyond 16 bits"),
        (encode(np.full((4, 4), -1, np.int32), "TIFF"), "beyond 16 bits"),
    ],
    ids=["float tiff", "pfm", "lab tiff", "32 bits", "negative"],
)
def test_pixels_without_an_agreed_range_are_refused(data: bytes, named: str) -> None:
    with pytest.raises(ImageError, match=named):
        decode(data)


# frames


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_counts(format: str) -> None:
    colours = [(200, 30, 40), (0, 255, 0), (0, 0, 255)]
    first, *others = (Image.new("RGB", (16, 16), colour) for colour in colours)
    data = encode(first, format, save_all=True, append_images=others)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert_close(decode(data), np.asarray(first), 3)


# damage

LARGE = load_sample_images().images[1]


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("TIFF", {})],
)
def test_a_truncated_image_is_refused(format: str, options: dict[str, Any], part: float) -> None:
    data = encode(LARGE, format, **options)
    assert decode(data).shape == LARGE.shape
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * part)])


@pytest.mark.parametrize("format", ["GIF", "BMP", "PPM", "TGA", "AVIF"])
def test_half_an_image_is_refused(format: str) -> None:
    data = encode(PHOTO, format)
    with pytest.raises(ImageError):
        decode(data[: len(data) // 2])


def test_a_png_with_a_corrupt_stream_is_refused() -> None:
    data = bytearray(encode(PHOTO, "PNG"))
    start = data.index(b"IDAT") + 40
    data[start : start + 40] = bytes(40)
    with pytest.raises(ImageError):
        decode(bytes(data))


# limits


def test_a_png_that_claims_60000_squared_is_refused_by_its_header(decoded: list[str]) -> None:
    with pytest.raises(ImageError, match=r"(?i)bomb|limit"):
        decode(png(60_000, 60_000, 8, 2, [b"\0" * 100]))
    assert not decoded


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_whole_1_bit_png_of_13300_squared_is_refused_undecoded(decoded: list[str]) -> None:
    data = encode(Image.new("1", (13_300, 13_300)), "PNG")
    assert len(data) < 2**20  # it decodes to 500 MiB of RGB
    decoded.clear()
    with pytest.raises(ImageError, match="13300 x 13300 pixels, over the limit of 89478485"):
        decode(data)
    assert not decoded


def test_the_pixel_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(PHOTO, "PNG")
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 96)
    assert decode(data).shape == PHOTO.shape
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 96 - 1)
    with pytest.raises(ImageError, match="96 x 64 pixels"):
        decode(data)
    with pytest.raises(ImageError, match="96 x 64 pixels"):
        rgb_from_array(PHOTO)


def test_a_jpeg_of_too_many_scans_is_refused_undecoded(decoded: list[str]) -> None:
    data = encode(PHOTO, "JPEG", progressive=True)
    assert decode(data).shape == PHOTO.shape
    decoded.clear()
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * (module.MAX_JPEG_SCANS + 1) + data[-2:]
    with pytest.raises(ImageError, match="more than 1000 scans"):
        decode(many)
    assert not decoded


def test_the_scan_limit_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(PHOTO, "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    assert scans > 1
    monkeypatch.setattr(module, "MAX_JPEG_SCANS", scans)
    assert decode(data).shape == PHOTO.shape
    monkeypatch.setattr(module, "MAX_JPEG_SCANS", scans - 1)
    with pytest.raises(ImageError, match="scans"):
        decode(data)


# files


def folder(root: Path) -> Path:
    return root


def fifo(root: Path) -> Path:
    os.mkfifo(root / "fifo.jpg")
    return root / "fifo.jpg"


def link_loop(root: Path) -> Path:
    (root / "a.jpg").symlink_to("b.jpg")
    (root / "b.jpg").symlink_to("a.jpg")
    return root / "a.jpg"


def dangling_link(root: Path) -> Path:
    (root / "a.jpg").symlink_to("nowhere.jpg")
    return root / "a.jpg"


def below_a_file(root: Path) -> Path:
    (root / "a.jpg").touch()
    return root / "a.jpg" / "b.jpg"


NOT_FILES: list[Callable[[Path], Any]] = [
    folder,
    fifo,
    link_loop,
    dangling_link,
    below_a_file,
    lambda root: "/dev/zero",
    lambda root: root / "missing.jpg",
    lambda root: f"{root}/nul\0.jpg",
    lambda root: root / ("x" * 300),
    lambda root: "",
]


@pytest.mark.parametrize("make", NOT_FILES)
def test_what_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    path = make(tmp_path)
    with pytest.raises(ImageError, match=r"."):
        read_file(path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("make", NOT_FILES)
def test_a_refused_file_leaves_no_descriptor_open(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    path = make(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(ImageError):
            read_file(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_over_the_size_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    assert read_file(path)[0] == bytes(100)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 99)
    with pytest.raises(ImageError, match="100 bytes, over the limit of 99"):
        read_file(path)


def pretend_now(monkeypatch: pytest.MonkeyPatch, path: Path, seconds: float) -> None:
    """Let the clock show `seconds` after the file was changed last."""
    changed = path.stat().st_ctime_ns
    now = changed + int(seconds * 1e9)
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: now))


@pytest.mark.parametrize(
    ("age", "settled"), [(-3600, False), (0, False), (1.9, False), (2.1, True)]
)
def test_the_state_is_known_only_of_a_file_that_lay_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, settled: bool
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"data")
    pretend_now(monkeypatch, path, age)
    data, state = read_file(path)
    assert data == b"data"
    assert (state is not None) == settled
    if state is not None:
        assert os.path.samestat(state, path.stat())


def test_the_state_is_unknown_of_a_file_just_written(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"data")
    assert read_file(path) == (b"data", None)


def test_an_old_mtime_does_not_make_a_changed_file_settled(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"data")
    os.utime(path, (0, 0))
    assert read_file(path)[1] is None


def test_the_state_is_unknown_of_a_file_that_grew_while_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"data")
    pretend_now(monkeypatch, path, 3600)
    fstat = os.fstat
    calls: list[int] = []

    def growing(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        if len(calls) == 3:  # that it is a regular file, its state before, its state after
            path.write_bytes(b"data and more")
        return fstat(descriptor)

    monkeypatch.setattr(module.os, "fstat", growing)
    assert read_file(path) == (b"data", None)


@pytest.mark.parametrize(
    ("name", "is_image"),
    [("a.jpg", True), ("A.JPEG", True), ("a.tar.WebP", True), ("a.svg", False), ("jpg", False), (".jpg", False)],
)  # fmt: skip
def test_image_names(name: str, is_image: bool) -> None:
    assert is_image_name(Path(name)) == is_image


# anything at all

SEEDS = [
    encode(PHOTO[:24, :32], "JPEG"),
    oriented(6, "JPEG"),
    encode(PHOTO[:24, :32], "PNG"),
    encode(hidden("RGBA"), "PNG"),
    encode(Image.fromarray(PHOTO).quantize(16), "GIF"),
    encode(PHOTO[:24, :32], "WEBP"),
    encode(PHOTO[:24, :32], "TIFF"),
    encode(PHOTO[:8, :8], "PPM"),
    grey_16_bits(SIXTEEN_BITS)["png"],
]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
@example(b"P5 1 1 65535\n\0\0")
def test_any_bytes_give_pixels_or_an_image_error(data: bytes) -> None:
    mutated_images_give_pixels_or_an_image_error(data)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real image with some bytes overwritten, removed or repeated."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        # Headers are short: half of all mutations go there.
        end = draw(st.sampled_from([min(200, len(data)), len(data)]))
        start = draw(st.integers(0, max(0, end - 1)))
        stop = draw(st.integers(start, min(len(data), start + 20)))
        data[start:stop] = draw(st.binary(max_size=8)) or data[start:stop] * 2
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
@settings(deadline=None, max_examples=600)
@given(mutated())
def test_a_mutated_image_gives_pixels_or_an_image_error(data: bytes) -> None:
    mutated_images_give_pixels_or_an_image_error(data)


# real odd files

ODD_FAILURES = {
    "pillow/broken.png": "not an image",
    "pillow/broken_data_stream.png": "data stream",
    "pillow/decompression_bomb.gif": "bomb",
    "pillow/hopper.Lab.tif": "LAB",
    "pillow/truncated_image.png": "truncated",
    "pillow/truncated_jpeg.jpg": "truncated",
}
ODD_SHAPES = {
    **{f"exif-orientation/Landscape_{number}.jpg": (1200, 1800) for number in range(1, 9)},
    "pillow/16_bit_binary.pgm": (100, 20),
    "pillow/1_trns.png": (64, 64),
    "pillow/hopper.png": (128, 128),
    "pillow/hopper.tif": (128, 128),
    "pillow/hopper.webp": (128, 128),
    "pillow/hopper_16bit.pgm": (128, 128),
    "pillow/hopper_gray.jpg": (128, 128),
    "pillow/hopper_orientation_6.jpg": (128, 128),
    "pillow/i_trns.png": (64, 64),
    "pillow/invalid-exif.jpg": (200, 200),
    "pillow/iss634.gif": (245, 245),
    "pillow/junk_jpeg_header.jpg": (768, 1024),
    "pillow/l_trns.png": (64, 64),
    "pillow/la.tga": (64, 64),
    "pillow/pil_sample_cmyk.jpg": (100, 100),
    "pillow/rgb_trns.png": (64, 64),
    "pillow/single_frame.png": (64, 128),
    "pillow/transparent.png": (150, 200),
}


@pytest.mark.parametrize("name", ODD_SHAPES)
def test_odd_images_that_decode(shared_data: Path, name: str) -> None:
    pixels = read(shared_data / "odd-images" / name).pixels()
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*ODD_SHAPES[name], 3)
    assert pixels.std() > 1  # a picture


@pytest.mark.parametrize("name", ODD_FAILURES)
def test_odd_images_that_fail(shared_data: Path, name: str) -> None:
    with pytest.raises(ImageError, match=ODD_FAILURES[name]):
        read(shared_data / "odd-images" / name).pixels()


def test_every_odd_image_is_in_one_of_the_tables(shared_data: Path) -> None:
    root = shared_data / "odd-images"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.is_file()}
    assert files == set(ODD_SHAPES) | set(ODD_FAILURES)


@pytest.mark.parametrize("number", range(2, 9))
def test_a_real_photograph_is_the_same_in_every_orientation(shared_data: Path, number: int) -> None:
    root = shared_data / "odd-images" / "exif-orientation"
    upright = read(root / "Landscape_1.jpg").pixels()
    pixels = read(root / f"Landscape_{number}.jpg").pixels()
    assert_close(pixels, upright)


def grey_tiff(values: np.ndarray, photometric: int, sample_format: int = 1) -> bytes:
    """Return an uncompressed grey TIFF of one row, in the byte order of the array's dtype."""
    order, bits, data = values.dtype.byteorder, 8 * values.dtype.itemsize, values.tobytes()
    sign = ">" if order == ">" else "<"
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, 1), (279, len(data)), (339, sample_format)]
    head = struct.pack(f"{sign}2sHIH", b"MM" if sign == ">" else b"II", 42, 8, len(tags))
    fields = [struct.pack(f"{sign}HHIHH", tag, 3, 1, value, 0) for tag, value in tags]
    return head + b"".join(fields) + bytes(4) + data


GREYS = np.array([0, 10, 128, 255])


@pytest.mark.parametrize("kind", ["u1", "<u2"])
def test_a_tiff_in_which_white_is_zero_is_no_negative(kind: str) -> None:
    stored = (GREYS * (257 if kind == "<u2" else 1)).astype(kind)
    white = stored.dtype.type(np.iinfo(stored.dtype).max)
    plain, inverted = grey_tiff(stored, 1), grey_tiff((white - stored).astype(kind), 0)
    assert decode(plain)[0, :, 0].tolist() == GREYS.tolist()
    np.testing.assert_array_equal(decode(inverted), decode(plain))


def test_big_endian_and_wider_tiffs_are_read_by_value() -> None:
    for kind, sample_format in ((">u2", 1), ("<i2", 2), ("<u4", 1), ("<i4", 2)):
        stored = (GREYS * 100).astype(kind)
        expected = np.rint(GREYS * 100 / 257)
        assert decode(grey_tiff(stored, 1, sample_format))[0, :, 0].tolist() == expected.tolist()


def test_signed_8_bit_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="signed 8-bit"):
        decode(grey_tiff(GREYS.astype("u1"), 1, sample_format=2))


def test_16_bit_pixels_are_converted_in_bounded_memory() -> None:
    tracemalloc.start()
    image = Image.new("I;16", (4_000, 4_000), 0x8000)
    rgb_from_pil(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 4_000 * 4_000  # 16 bits, grey, RGB: 6 bytes a pixel


SCENE = Image.fromarray(load_sample_images().images[0])  # 640 x 427
JPEGS = {
    "4:2:0": {},
    "4:4:4": {"subsampling": "4:4:4"},
    "progressive": {"progressive": True, "quality": 60},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "optimized": {"optimize": True, "quality": 95},
}


def jpeg(mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(SCENE.convert(mode), "JPEG", exif=exif, **options)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize(("least", "size"), [(108, (214, 320)), (106, (107, 160)), (53, (54, 80))])
def test_a_reduced_jpeg_keeps_the_least_side(kind: str, least: int, size: Any) -> None:
    data = jpeg(**JPEGS[kind])
    found, whole = decode(data, least), Image.fromarray(decode(data))
    assert found.shape == (*size, 3)
    assert_close(found, np.asarray(whole.resize(found.shape[1::-1], Image.Resampling.BOX)), 9)


@pytest.mark.parametrize("least", [214, 427, 10_000])
def test_a_small_jpeg_is_untouched(least: int) -> None:
    for data in (jpeg(), jpeg(orientation=6)):
        np.testing.assert_array_equal(decode(data, least), decode(data))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_are_never_reduced(format: str) -> None:
    data = encode(SCENE, format)
    np.testing.assert_array_equal(decode(data, 20), decode(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_keeps_its_orientation(orientation: int) -> None:
    data = jpeg(orientation=orientation)
    found, whole = decode(data, 100), Image.fromarray(decode(data))
    assert_close(found, np.asarray(whole.resize(found.shape[1::-1], Image.Resampling.BOX)), 9)


def test_the_limit_of_pixels_holds_for_reduced_jpegs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 640 * 427 - 1)
    with pytest.raises(ImageError, match="over the limit"):
        decode(jpeg(), 54)


@pytest.mark.parametrize("least", [0, 106])
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_simplejpeg_gives_the_pixels_of_pillow(
    monkeypatch: pytest.MonkeyPatch, kind: str, orientation: int, least: int
) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    calls, whole = [], simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a: (calls.append(1), whole(*a))[1])
    data = jpeg(orientation=orientation, **JPEGS[kind])
    found = decode(data, least)
    assert bool(calls) == (orientation == 1 and kind != "CMYK")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    np.testing.assert_array_equal(found, decode(data, least))
    found[0, 0] = 0  # writable


def test_files_that_simplejpeg_refuses_are_pillows() -> None:
    pytest.importorskip("simplejpeg")
    data = jpeg()
    with pytest.raises(ImageError, match="truncated"):
        decode(data[: len(data) // 2])
    start = data.index(b"\xff\xdb")
    odd = data[:start] + b"\0" * 7 + data[start:]  # a warning of libjpeg
    np.testing.assert_array_equal(decode(odd), decode(data))
    two = encode(SCENE, "MPO", save_all=True, append_images=[SCENE.convert("L").convert("RGB")])
    assert_close(decode(two), np.asarray(SCENE))
