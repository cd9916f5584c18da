"""Video: which frames are sampled, wherever they lie; hostile files are named and open no other."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest
from PIL import Image

from featuretl import extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ItemError, ParameterError
from featuretl.media import Video, video
from featuretl.media.video import sampled

TINY = BackboneSpec.of("test", "test_resnet", weights="random")
SIZE = 48, 64


def write(levels, rate: int = 10, kind: str = "mp4", codec: str = "mpeg4", file=None) -> bytes:
    """Return a video whose frame i is of the grey level levels[i], or is levels[i]."""
    file = file or io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 500_000, 12
        for level in levels:
            pixels = level if np.ndim(level) else np.full((*SIZE, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())
    return file.getvalue()


def levels_of(data: bytes, n: int) -> list[float]:
    return sampled(io.BytesIO(data), n, lambda pixels: float(pixels.mean()))


@pytest.mark.parametrize("n", [1, 3, 8])
@pytest.mark.parametrize(("n_frames", "rate"), [(40, 10), (240, 4)])  # 4 s; 60 s, to be sought in
@pytest.mark.parametrize("kind", ["mp4", "matroska", "avi"])
def test_the_middle_frames_of_equal_parts_are_seen(n, n_frames, rate, kind):
    levels = np.linspace(20, 230, n_frames)
    found = levels_of(write(levels, rate, kind), n)
    middles = (np.arange(n) + 0.5) * n_frames / n
    np.testing.assert_allclose(found, levels[middles.astype(int)], atol=4)


def test_few_frames_of_a_long_video_are_decoded(monkeypatch):
    data = write(np.linspace(20, 230, 480), rate=4)  # two minutes, a key frame every 3 s
    monkeypatch.setattr(video, "MAX_DECODED", 60)
    assert len(levels_of(data, 4)) == 4
    monkeypatch.setattr(video, "MAX_DECODED", 4)
    with pytest.raises(ItemError, match="over 4 frames"):
        levels_of(data, 4)


def test_an_animated_gif_is_a_video_and_of_few_frames_all_are_seen():
    levels = np.arange(0, 240, 8)
    file = io.BytesIO()
    first, *others = (Image.new("L", SIZE[::-1], level) for level in levels.tolist())
    first.save(file, "GIF", save_all=True, append_images=others, duration=100)
    np.testing.assert_allclose(levels_of(file.getvalue(), 4), levels[[3, 11, 18, 26]], atol=1)
    np.testing.assert_allclose(levels_of(file.getvalue(), 100), levels, atol=1)


class Pipe:
    """A file that is written from one end to the other, so that no length can be put in front."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self.write, self.getvalue = self._file.write, self._file.getvalue


def test_of_a_video_that_does_not_tell_its_length_frames_are_spread():
    levels = np.arange(0, 240, 4)
    data = write(levels, kind="matroska", file=Pipe())
    for n in (1, 4, 7, 25):
        expected = levels[((np.arange(n) + 0.5) * 60 / n).astype(int)]
        np.testing.assert_allclose(levels_of(data, n), expected, atol=4 + 4 * 60 / (2 * n))
    np.testing.assert_allclose(levels_of(data, 100), levels, atol=4)


def test_a_turned_video_is_seen_upright():
    half = np.zeros((*SIZE, 3), np.uint8)
    half[:24] = 250
    data = write([half] * 5)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    track = data.index(b"tkhd")
    at = data.index(upright, track)
    turned = data[:at] + clockwise + data[at + 36 :]
    (pixels,) = sampled(io.BytesIO(turned), 1, np.asarray)
    assert pixels.shape == (64, 48, 3)
    assert pixels[:, 30:].mean() > 220 > 30 > pixels[:, :18].mean()  # the top is now at the right


def test_files_and_arrays_are_embedded_alike(store, tmp_path, forwards, pixels):
    clip = np.stack([pixels[8 * i : 8 * i + 48, 16 * i : 16 * i + 64] for i in range(16)])
    path = tmp_path / "clip.mp4"
    path.write_bytes(write(list(clip)))
    medium = Video(TINY, frames=4, pooling="mean+std")
    items = [clip, str(path), path.read_bytes(), clip[::-1].copy()]
    fresh = extract(items, medium, store=store).to_numpy()
    np.testing.assert_array_equal(extract(items, medium, store=store).to_numpy(), fresh)
    assert len(forwards) == len(set(forwards)) == 3
    np.testing.assert_array_equal(fresh[1], fresh[2])
    unit = fresh / np.linalg.norm(fresh, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.98  # except for the losses of MPEG-4
    single = extract(items, medium, batch_size=1, n_jobs=1).to_numpy()
    np.testing.assert_allclose(single, fresh, atol=1e-5)


def test_the_embedding_is_the_mean_of_the_frames(pixels):
    clip = np.stack([pixels[:100, i : i + 100] for i in (0, 100, 200)])
    each = extract(clip, TINY).to_numpy()
    pooled = extract([clip], Video(TINY, frames=3, pooling="mean+std")).to_numpy()[0]
    np.testing.assert_allclose(pooled, np.concatenate([each.mean(0), each.std(0)]), atol=1e-5)


def _with_sound_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8_000
        container.mux(stream.encode(frame))
    return file.getvalue()


CUT = write(range(0, 250, 2), kind="matroska")
HOSTILE = {
    "empty": (b"", "."),
    "text": (b"<html>not a video</html>" * 20, "."),
    "sound only": (_with_sound_only(), "."),
    "no index": (write(range(0, 200, 5))[:2_000], "."),
    "cut": (CUT[: len(CUT) // 2], r"it ends after \d.\d s of the 12.5 s"),
    "array": (np.zeros((3, 4, 4, 1), np.uint8), r"expected uint8 \(n, h, w, 3\)"),
    "floats": (np.zeros((3, 4, 4, 3)), "dtype float64"),
    "no frames": (np.zeros((0, 4, 4, 3), np.uint8), "expected uint8"),
    "nothing of the kind": (7, "a int; expected a path or bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_videos_are_named(name):
    item, match = HOSTILE[name]
    with pytest.raises(ItemError, match=match):
        Video(TINY).prepare(item)


def test_frames_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 1_000)
    with pytest.raises(ItemError):
        levels_of(write([0, 100]), 1)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_a_file_cannot_have_another_one_opened(playlist, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(write(range(0, 200, 20)))
    path = tmp_path / "harmless.mp4"
    path.write_text(playlist.format(path=secret))
    with pytest.raises(ItemError):
        Video(TINY).prepare(path)
    with pytest.raises(ItemError):
        Video(TINY).prepare(path.read_bytes())


def test_mutated_videos_are_frames_or_named():
    data = write(range(0, 200, 10))
    rng = np.random.default_rng(0)
    for _ in range(40):
        mutated = bytearray(data)
        for at in rng.integers(len(mutated), size=rng.integers(1, 20)):
            mutated[at] = rng.integers(256)
        try:
            assert levels_of(bytes(mutated), 3)
        except ItemError as error:
            assert str(error)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"frames": 2.5}, {"pooling": "max"}])
def test_parameters_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"'{name}' parameter of Video"):
        Video(**wrong)


def test_without_pyav_arrays_still_work(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert len(Video(TINY, frames=2).prepare(np.zeros((5, 48, 64, 3), np.uint8))) == 2
    with pytest.raises(Exception, match=r"pip install 'featuretl\[video\]'") as caught:
        Video(TINY).prepare(b"")
    assert not isinstance(caught.value, ItemError)
