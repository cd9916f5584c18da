"""Decoders that crash, hang or lie cost one row, in processes that can be lost."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from featuretl_cli.main import cli
from PIL import Image

from featuretl import ImageEmbedder, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import FeatureTLError, ImageError, ParameterError
from featuretl.images import isolated
from featuretl.images.decode import decode
from featuretl.images.isolated import IsolatedDecoder

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

# Imported by every Python that finds it first on its path. What crashes and hangs is native code;
# the sleep of a PyDLL holds the interpreter's lock.
FAULTY = """
import ctypes, os, signal, sys
from PIL import Image
whole = Image.open
def faulty(file, **options):
    data = file.getvalue()
    if data == b"crash":
        ctypes.string_at(0)
    if data == b"abort":
        os.abort()
    if data == b"hang":
        ctypes.PyDLL(None).sleep(1000)
    if data == b"stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if data == b"exit":
        os._exit(3)
    if data == b"print":
        print("a library's word " * 100, flush=True)
        os.write(1, b"and another")
    return whole(file, **options)
Image.open = faulty
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Children whose Pillow crashes and hangs at certain bytes."""
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty" / "sitecustomize.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path / "faulty")


@pytest.fixture
def photo(photos):
    return Path(photos[0]).read_bytes()


def test_pixels_and_errors_are_those_of_this_process(photos, pixels):
    tall = io.BytesIO()
    Image.fromarray(pixels[:, :50]).save(tall, "PNG")
    grey = io.BytesIO()
    Image.fromarray(pixels[:1, :1, 0]).save(grey, "PNG")
    with IsolatedDecoder(seconds=60) as isolated_decode:
        for data in [
            *(Path(path).read_bytes() for path in photos),
            tall.getvalue(),
            grey.getvalue(),
        ]:
            found = isolated_decode(data)
            np.testing.assert_array_equal(found, decode(data))
            assert found.dtype == np.uint8
            assert found.flags.writeable
        for bad in (b"", b"<html>404</html>", tall.getvalue()[:-100]):
            with pytest.raises(ImageError) as here:
                decode(bad)
            with pytest.raises(ImageError) as there:
                isolated_decode(bad)
            assert str(there.value) == str(here.value)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"crash", r"ended the decoder's process \(SIGSEGV\)"),
        (b"abort", r"ended the decoder's process \(SIGABRT\)"),
        (b"exit", r"ended the decoder's process \(exit status 3\)"),
        (b"hang", r"took longer than 3 s"),
        (b"stop", r"took longer than 3 s"),
    ],
)
def test_a_decoder_that_crashes_or_hangs_costs_one_image(faulty, photo, bad, said):
    with IsolatedDecoder(seconds=3) as isolated_decode:
        isolated_decode(photo)
        with pytest.raises(ImageError, match=said):
            isolated_decode(bad)
        np.testing.assert_array_equal(isolated_decode(photo), decode(photo))


def test_what_a_library_prints_is_no_answer(faulty):
    with IsolatedDecoder(seconds=60) as isolated_decode:
        for _ in range(2):
            with pytest.raises(ImageError, match="not an image in a supported format"):
                isolated_decode(b"print")


def test_every_thread_has_a_child_and_none_outlives_the_context(photo):
    with IsolatedDecoder(seconds=60) as isolated_decode, ThreadPoolExecutor(3) as pool:
        assert all(
            (found == decode(photo)).all() for found in pool.map(isolated_decode, [photo] * 9)
        )
        children = [child.process for child in isolated_decode._idle]
        assert 1 <= len(children) <= 3
        assert all(child.poll() is None for child in children)
    assert all(child.poll() is not None for child in children)


def test_a_child_that_was_killed_between_two_images_costs_none(photo):
    with IsolatedDecoder(seconds=60) as isolated_decode:
        isolated_decode(photo)
        (child,) = isolated_decode._idle
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()
        np.testing.assert_array_equal(isolated_decode(photo), decode(photo))


@pytest.mark.parametrize(
    "answer",
    [
        "pack('<?QQ', True, 0, 7)",
        "pack('<?QQ', True, 2**32, 2**32)",
        "pack('<?QQ', True, 60_000, 60_000)",
        "pack('<?QQ', False, 2**40, 0)",
        "pack('<?QQ', True, 4, 4) + bytes(47)",
        "b'short'",
    ],
)
def test_a_child_that_lies_is_not_believed(tmp_path, monkeypatch, answer):
    (tmp_path / "liar.py").write_text(
        "import sys\nfrom struct import pack\n"
        "sys.stdout.buffer.write(b'\\n'); sys.stdout.buffer.flush()\n"
        "sys.stdin.buffer.read(9)\n"
        f"sys.stdout.buffer.write({answer})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(isolated, "__name__", "liar")
    with IsolatedDecoder(seconds=60) as isolated_decode:
        with pytest.raises(ImageError, match=r"no pixels within the limits|ended the decoder"):
            isolated_decode(b"x")
        assert not isolated_decode._idle


def test_that_there_can_be_no_child_is_no_fault_of_the_image(tmp_path, monkeypatch, photo):
    with IsolatedDecoder(seconds=60) as isolated_decode:
        monkeypatch.setattr(isolated, "__name__", "no_such_module")
        with pytest.raises(FeatureTLError, match="can be started") as caught:
            isolated_decode(photo)
        assert not isinstance(caught.value, ImageError)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
        with pytest.raises(FeatureTLError, match=r"No such file .* decode_timeout"):
            isolated_decode(photo)


def test_an_extraction_loses_only_the_rows_that_crash_or_stall(faulty, photos, store):
    images = [*photos[:5], b"crash", *photos[5:9], b"hang", *photos[9:12], b"crash"]
    began = time.monotonic()
    extraction = extract(
        images, TINY, store=store, n_jobs=2, batch_size=4, on_error="nan", decode_timeout=3
    )
    assert time.monotonic() - began < 100  # not the 1,000 s of the one that hangs
    assert [failure.index for failure in extraction.failures] == [5, 10, 14]
    assert "SIGSEGV" in extraction.failures[0].message
    assert "longer than 3 s" in extraction.failures[1].message
    assert extraction.statistics.embedded == 12
    plain = extract(photos[:12], TINY)
    assert extraction.recipe == plain.recipe
    np.testing.assert_array_equal(extraction.to_numpy()[extraction.ok], plain.to_numpy())
    # A failure is not kept: another run may have another limit, or another Pillow.
    assert extract(images[:10], TINY, store=store, on_error="nan").statistics.cached == 9


def test_the_embedder_and_the_command_line_take_the_limit(faulty, photos, tmp_path):
    images = np.array([*photos[:3], b"crash"], dtype=object)
    embedder = ImageEmbedder("test_resnet", weights="random", decode_timeout=60, cache=None)
    with pytest.raises(ImageError, match="SIGSEGV"):
        embedder.transform(images)
    rows = embedder.transform(images[:3])
    plain = ImageEmbedder("test_resnet", weights="random", cache=None).transform(images[:3])
    np.testing.assert_array_equal(rows, plain)
    (tmp_path / "crash.jpg").write_bytes(b"crash")
    options = ["--backbone", "test_resnet", "--weights", "random", "--decode-timeout", "60"]
    done = CliRunner().invoke(cli, ["extract", photos[0], str(tmp_path / "crash.jpg"), *options])
    assert done.exit_code == 1
    assert "SIGSEGV" in done.stderr


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), 1e300, True, "10"])
def test_a_time_that_is_none_is_refused(pixels, value):
    with pytest.raises(
        ParameterError, match=r"'decode_timeout' parameter of extract must be a num"
    ):
        extract([pixels], TINY, decode_timeout=value)


def test_a_child_that_never_gets_ready_is_given_up(tmp_path, monkeypatch, photo):
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(isolated, "__name__", "sleeper")
    monkeypatch.setattr(isolated, "_START_SECONDS", 0.2)
    with IsolatedDecoder(seconds=60) as isolated_decode:
        with pytest.raises(FeatureTLError, match=r"not ready after 0\.2 s") as caught:
            isolated_decode(photo)
    assert not isinstance(caught.value, ImageError)


def test_a_child_reduces_jpegs_as_decode_does(photos):
    data = Path(photos[0]).read_bytes()
    with IsolatedDecoder(60) as decoder:
        for least_side in (0, 40):
            found = decoder(data, least_side)
            np.testing.assert_array_equal(found, decode(data, least_side))
