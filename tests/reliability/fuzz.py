"""Fuzz the decoders with hostile bytes: ``python tests/reliability/fuzz.py --seconds 600``.

`test_fuzz.py` runs the same targets for a few seconds. A failure prints the smallest failing input
and the seed that reproduces it.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image
from sklearn.datasets import load_sample_images

from featuretl.exceptions import ImageError
from featuretl.images.decode import MAX_PIXELS, decode
from featuretl.store.format import (
    KEY_DTYPE,
    DamagedFileError,
    open_checked_rows,
    open_rows,
    read_keys,
    write_segment,
)

EXTREMES = [b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]


def encoded_photographs() -> list[bytes]:
    """Return crops of two real photographs in the formats and variants that Pillow writes."""
    variants: list[tuple[str, str, dict[str, Any]]] = [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "L", {"compression": "jpeg"}),
        ("BMP", "RGB", {}),
        ("BMP", "1", {}),
    ]
    photographs = [
        Image.fromarray(photo[100:133, 200:241]) for photo in load_sample_images().images
    ]
    files = []
    for (format_, mode, options), photograph in itertools.product(variants, photographs):
        buffer = io.BytesIO()
        image = photograph.convert("I") if mode == "I;16" else photograph
        image.convert(mode).save(buffer, format_, **options)
        files.append(buffer.getvalue())
    return files


@st.composite
def mutated(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """Draw one of `files` with bytes overwritten, inserted, removed, repeated or exchanged."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        # Half of all mutations hit the header, which is short.
        end = draw(st.sampled_from([min(200, len(data)), len(data)]))
        start = draw(st.integers(0, end))
        stop = draw(st.integers(start, min(len(data), start + 24)))
        other = draw(st.sampled_from(files))
        new = draw(
            st.one_of(
                st.sampled_from(EXTREMES),
                st.binary(max_size=8),
                st.just(bytes(data[start:stop]) * 2),
                st.just(other[start:stop]),
            )
        )
        data[start : draw(st.sampled_from([start, stop, start + len(new)]))] = new
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


PHOTOGRAPHS = encoded_photographs()


def mutated_images_give_pixels_or_an_image_error(data: bytes) -> None:
    """Check that decoding a mutated image gives pixels or an ImageError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of input that is then rejected or repaired
        try:
            pixels = decode(data)
        except ImageError as error:
            assert str(error)
            return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


KEYS = np.frombuffer(bytes(range(96)), KEY_DTYPE)
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
FOLDER = tempfile.TemporaryDirectory()
SEGMENT = write_segment(Path(FOLDER.name), "0" * 32, "ab" * 32, KEYS, ROWS)
FILES = [SEGMENT.path(Path(FOLDER.name), suffix) for suffix in (".npy", ".keys")]
WHOLE = [file.read_bytes() for file in FILES]


def mutated_segments_are_refused_or_as_they_were(
    rows_file: bytes, keys_file: bytes, which: tuple[bool, bool]
) -> None:
    """Check that reading a segment with one or two mutated files fails or gives its data."""
    folder = Path(FOLDER.name)
    for file, whole, data, is_mutated in zip(
        FILES, WHOLE, (rows_file, keys_file), which, strict=True
    ):
        file.write_bytes(data if is_mutated else whole)
    for read in (open_rows, open_checked_rows):  # neither may raise another exception
        try:
            read(folder, SEGMENT)
        except DamagedFileError as error:
            assert str(error)
    try:
        described, keys = read_keys(folder, SEGMENT.uuid)
        if described != SEGMENT:
            raise DamagedFileError(FILES[1], "of another segment")
        rows = open_checked_rows(folder, SEGMENT)
    except DamagedFileError:
        return
    assert keys.tobytes() == KEYS.tobytes()
    assert rows.tobytes() == ROWS.tobytes()


TARGETS: dict[Callable[..., None], list[SearchStrategy[Any]]] = {
    mutated_images_give_pixels_or_an_image_error: [mutated(PHOTOGRAPHS)],
    mutated_segments_are_refused_or_as_they_were: [
        mutated(WHOLE),
        mutated(WHOLE),
        st.sampled_from([(True, False), (False, True), (True, True)]),
    ],
}


def run(target: Callable[..., None], examples: int, seed: int | None = None) -> None:
    """Run a target on `examples` inputs."""
    test = given(*TARGETS[target])(target)
    if seed is not None:
        test = hypothesis.seed(seed)(test)
    settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )(test)()


def main() -> None:
    """Run all targets repeatedly until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="time limit")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    for seed in itertools.count(arguments.seed):
        if time.monotonic() > end:
            break
        print(f"seed {seed}", flush=True)
        for target in TARGETS:
            run(target, 500, seed)


if __name__ == "__main__":
    main()
