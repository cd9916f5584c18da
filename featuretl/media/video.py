"""Video: sampled frames, embedded by an image backbone and pooled over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

import numpy as np

from featuretl._core.lazy import import_extra
from featuretl._core.parameters import check_int, check_option
from featuretl.exceptions import ItemError
from featuretl.images.decode import MAX_PIXELS, describe, golden_pixels
from featuretl.media.items import digest_of, digest_of_array, open_item
from featuretl.media.pictures import POOLINGS, Pictures
from featuretl.store.keys import Recipe

MAX_DECODED = 50_000

# No file can make FFmpeg open another file, as a playlist (HLS, concat, ..) would, or a connection.
_OPTIONS = {
    "format_whitelist": "mov,matroska,avi,mpegts,mpeg,ogg,flv,asf,gif,apng",
    "protocol_whitelist": "none",
}

_SEEK_SECONDS = 4.0  # seek to frames further ahead than this, and decode up to nearer ones
_MISSING_SECONDS, _MISSING_FRACTION = 1.0, 0.1  # of the claimed length; the larger is tolerated


@dataclass(frozen=True)
class Video(Pictures):
    """A `Medium` that embeds videos as sampled frames with an image backbone, pooled over time.

    The video is divided into `frames` equal parts; the middle frame of each is embedded like a
    photograph, and the embeddings are pooled. Their order has no effect (the sampling is that of
    L. Wang et al., "Temporal Segment Networks", 2016, arXiv:1608.00859). Sound is ignored.

    Items are paths or bytes of files (MP4 and MOV, WebM and Matroska, AVI, MPEG, Ogg, GIF, ..), or
    uint8 arrays of frames, (n, height, width, 3). Frames are decoded one at a time, after a seek
    where that is shorter, so that memory does not depend on the length. An item fails if it is
    truncated, has frames beyond the limits of images, or needs over 50,000 frames to be decoded.

    Parameters
    ----------
    backbone, pooling
        As in `Sound`; "mean+std" also represents the variation of the frames.
    frames : int, default=8
        Maximum number of frames.

    Notes
    -----
    Files need ``pip install 'featuretl[video]'`` (PyAV, which brings FFmpeg). Weights are loaded on
    first use, as in `Sound`.

    Examples
    --------
    >>> from featuretl import extract
    >>> clip = np.zeros((30, 48, 64, 3), np.uint8)
    >>> extract([clip, 255 - clip], Video(frames=2)).shape
    (2, 1280)
    """

    backbone: Any = "tf_efficientnet_lite0"
    frames: int = 8
    pooling: str = "mean"

    def __post_init__(self) -> None:
        check_int("Video", "frames", self.frames, 1)
        check_option("Video", "pooling", self.pooling, POOLINGS)

    @property
    def recipe(self) -> Recipe:
        """Everything that determines the embeddings (JSON)."""
        facts = {"name": "video", "version": 1, "frames": self.frames}
        return self._recipe("frames", medium=facts)

    @property
    def golden(self) -> np.ndarray:
        """A photograph that moves to the left."""
        photo = golden_pixels()
        return np.stack([np.roll(photo, -8 * step, axis=1) for step in range(4)])

    def digest(self, item: Any) -> bytes:
        """Return the sha256 of the file's bytes, or of the frames."""
        return digest_of_array(_frames(item)) if isinstance(item, np.ndarray) else digest_of(item)

    def prepare(self, item: Any) -> list[Any]:
        """Return the network's input for each sampled frame. Raises ItemError."""
        prepare = self._backbone.prepare
        if isinstance(item, np.ndarray):
            clip = _frames(item)
            return [prepare(clip[i]) for i in _middles(len(clip), self.frames)]
        with open_item(item) as file:
            return sampled(file, self.frames, prepare)


def sampled(file: BufferedIOBase, n: int, prepare: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return `prepare(frame)` of the middle frame, uint8 (h, w, 3), of n equal parts of a video."""
    av = import_extra("av", "Video files need PyAV", "video")
    try:
        with av.open(file, container_options=_OPTIONS) as container:
            if not container.streams.video:
                raise ItemError("it has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the engine's threads are enough
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            _check_size(stream.codec_context)
            frames = _Frames(container, stream)
            start, end = _span(container, stream)
            if end > start:
                inputs = [prepare(pixels) for pixels in frames.at(start, end, n)]
            else:
                inputs = _evenly_spaced(frames, n, prepare)
    except ItemError:
        raise
    except Exception as error:  # errors of FFmpeg, and any that a hostile file causes
        raise ItemError(getattr(error, "strerror", None) or describe(error)) from error
    if not inputs:
        raise ItemError("it has no frames")
    return inputs


class _Frames:
    """The frames of a stream from the last seek position, up to `MAX_DECODED` in all."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._left = MAX_DECODED
        self._decoded = container.decode(stream)

    def __iter__(self) -> Iterator[Any]:
        for frame in self._decoded:
            self._left -= 1
            if self._left < 0:
                raise ItemError(
                    f"over {MAX_DECODED} frames to decode; split the video, or save it with more "
                    "key frames"
                )
            _check_size(frame)
            yield frame

    def at(self, start: float, end: float, n: int) -> Iterator[np.ndarray]:
        """Yield the pixels of the frame that is shown in the middle of each of n equal parts."""
        now = start  # end of the last decoded frame
        for part in range(n):
            wanted = start + (end - start) * (part + 0.5) / n
            if wanted - now > _SEEK_SECONDS:
                self._container.seek(int(wanted / self._stream.time_base), stream=self._stream)
                self._decoded = self._container.decode(self._stream)
            for frame in self:
                now = _shown_until(frame, wanted)
                if now > wanted:
                    yield _pixels(frame)
                    break
            else:  # the sound may be a little longer than the pictures
                if end - now > max(_MISSING_SECONDS, _MISSING_FRACTION * (end - start)):
                    raise ItemError(f"it ends after {now:.1f} s of the {end:.1f} s that it claims")
                return


def _shown_until(frame: Any, wanted: float) -> float:
    """Return the end of a frame in seconds; after `wanted` for a frame without a time."""
    if frame.time is None:
        return wanted + 1
    return float(frame.time) + max(float((frame.duration or 0) * frame.time_base), 1e-6)


def _span(container: Any, stream: Any) -> tuple[float, float]:
    """Return the start and end of the video in seconds; equal if the file does not state them."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration:
        return start, start + float(stream.duration * stream.time_base)
    return start, start + (container.duration or 0) / 1e6


def _evenly_spaced(frames: _Frames, n: int, prepare: Callable[[np.ndarray], Any]) -> list[Any]:
    """Return the inputs of n evenly spaced frames of a stream, with at most 2 n + 1 in memory."""
    kept: list[Any] = []
    step = 1
    for index, frame in enumerate(frames):
        if index % step == 0:
            kept.append(prepare(_pixels(frame)))
        if len(kept) > 2 * n:
            kept, step = kept[::2], 2 * step
    return [kept[i] for i in _middles(len(kept), n)]


def _middles(length: int, n: int) -> list[int]:
    """Return the middle index of each of n equal parts of a sequence, or all if n is larger."""
    parts = min(length, n)
    return [int((part + 0.5) * length / parts) for part in range(parts)]


def _pixels(frame: Any) -> np.ndarray:
    """Return the pixels of a frame, rotated upright: uint8 (h, w, 3)."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _check_size(picture: Any) -> None:
    width, height = picture.width, picture.height
    if not 0 < width * height <= MAX_PIXELS:
        raise ItemError(f"frames of {width} x {height} pixels; expected 1 to {MAX_PIXELS} pixels")


def _frames(clip: np.ndarray) -> np.ndarray:
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
        raise ItemError(
            f"an array of shape {clip.shape} and dtype {clip.dtype}; expected uint8 (n, h, w, 3)"
        )
    return clip
