"""Reduced decoding of large JPEGs: cosines to full decoding, and the processor time of both.

    python benchmarks/decode.py [--repeats 9] [--json]

Every photograph in ../shared/data with a shorter side of 1,000 pixels or more (hymenoptera,
sign-digits and odd-images; none is enlarged) is one image; so are its versions of other quality,
subsampling and colours, and its four quadrants. Each is decoded at 1/2, 1/4 and 1/8. "times" is the
ratio of its shorter side, after decoding, to that of the resized image.
"""

from __future__ import annotations

import io
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
from common import DATA, show
from PIL import Image

from featuretl import load_backbone
from featuretl.images.decode import decode

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "mobilenetv2_100")
RANGES = ((1.5, 2), (2, 3), (3, 4), (4, 6))
FOLDERS = ("hymenoptera", "sign-digits", "odd-images/exif-orientation")


def photographs() -> Iterator[bytes]:
    """Yield the files of large photographs; of the same one in eight orientations, the sixth."""
    for folder in FOLDERS:
        for path in sorted((DATA / folder).rglob("*.[jJ][pP][gG]")):
            with Image.open(path) as image:
                is_large = min(image.size) >= 1000
            if is_large and not (path.stem.startswith("Landscape") and path.stem[-1] != "6"):
                yield path.read_bytes()


def versions(photograph: bytes) -> Iterator[bytes]:
    """Yield a photograph, as it is and as other JPEGs, and its quadrants."""
    pixels = decode(photograph)
    whole = Image.fromarray(pixels)

    def jpeg(image: Image.Image, **options: Any) -> bytes:
        image.save(file := io.BytesIO(), "JPEG", **options)
        return file.getvalue()

    yield photograph
    for quality, subsampling in itertools.product((50, 75, 95), ("4:2:0", "4:4:4")):
        yield jpeg(whole, quality=quality, subsampling=subsampling)
    yield jpeg(whole, quality=85, progressive=True)
    yield jpeg(whole, quality=85, subsampling="4:2:2")
    yield jpeg(whole.convert("L"), quality=85)
    yield jpeg(whole.convert("CMYK"), quality=85)
    y, x = (side // 2 for side in pixels.shape[:2])
    for top, left in itertools.product((0, y), (0, x)):
        yield jpeg(whole.crop((left, top, left + x, top + y)), quality=90)


def cosines(files: list[bytes], name: str) -> list[dict[str, Any]]:
    """Return the least and mean cosines of reduced to full decoding, by ratio."""
    backbone = load_backbone(name, decode="reduced", device="cpu")
    resized = backbone.preprocessing.least_side / backbone.preprocessing.decode_ratio
    found: dict[Any, list[float]] = {limits: [] for limits in RANGES}
    for file in files:
        whole = decode(file)
        full = backbone.embed([backbone.prepare(whole)])[0]
        for factor in (2, 4, 8):
            side = min(whole.shape[:2]) // factor
            for low, high in RANGES:
                if low <= side / resized < high:
                    reduced = backbone.embed([backbone.prepare(decode(file, side))])[0]
                    norms = np.linalg.norm(full) * np.linalg.norm(reduced)
                    found[low, high].append(float(full @ reduced / norms))
    return [
        {
            "backbone": name,
            "times": f"{low:g} to {high:g}",
            "n": len(values),
            "least": min(values),
            "mean": statistics.fmean(values),
        }
        for (low, high), values in found.items()
    ]


def times(file: bytes, repeats: int) -> list[dict[str, Any]]:
    """Return the median processor milliseconds to decode a photograph at each size, alternating."""
    import simplejpeg

    seconds: dict[Any, list[float]] = {}
    side = min(decode(file).shape[:2])
    for _, by, factor in itertools.product(range(repeats), ("simplejpeg", "Pillow"), (1, 2, 4)):
        sys.modules["simplejpeg"] = simplejpeg if by == "simplejpeg" else None  # type: ignore[assignment]
        began = time.process_time()
        pixels = decode(file, side // factor)
        seconds.setdefault((by, factor, pixels.shape[:2]), []).append(time.process_time() - began)
    sys.modules["simplejpeg"] = simplejpeg
    return [
        {"by": by, "size": shape, "core ms": 1e3 * statistics.median(values)}
        for (by, _, shape), values in seconds.items()
    ]


@click.command(help=__doc__)
@click.option("--repeats", default=9, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(repeats: int, as_json: bool) -> None:
    """Run the benchmark and print it."""
    files = list(photographs())
    everything = [version for file in files for version in versions(file)]
    show([row for name in BACKBONES for row in cosines(everything, name)], as_json)
    show([row for file in files for row in times(file, repeats)], as_json)


if __name__ == "__main__":
    main()
