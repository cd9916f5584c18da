"""Sound: log-mel spectrograms of recordings, embedded by an image backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from featuretl._core.lazy import import_extra
from featuretl._core.parameters import check_int, check_option, check_seconds
from featuretl.exceptions import ItemError
from featuretl.images.decode import describe
from featuretl.media.items import digest_of, digest_of_array, open_item
from featuretl.media.pictures import POOLINGS, Pictures
from featuretl.store.keys import Recipe

MAX_CHANNELS = 16
RATES = 1_000, 192_000
N_BANDS = 128
WIDTH = 250
RANGE_DB = 80
LOWEST_HZ, HIGHEST_HZ = 20.0, 16_000.0
WINDOWS_MS = ((25, 10), (50, 25), (100, 50))

SPECTROGRAM = {
    "version": 1,
    "bands": N_BANDS,
    "width": WIDTH,
    "range_db": RANGE_DB,
    "hz": [LOWEST_HZ, HIGHEST_HZ],
    "windows_ms": [list(pair) for pair in WINDOWS_MS],
}


@dataclass(frozen=True)
class Sound(Pictures):
    """A `Medium` that embeds sounds as spectrograms with an image backbone.

    A sound is cut into windows. The network sees the spectrogram of each window as one uncropped
    picture, similar to that of Palanisamy et al. (2020, arXiv:2007.11154; see the guide), and the
    embeddings of the windows are pooled.

    Items are paths or bytes of files that libsndfile reads (WAV, FLAC, Ogg, MP3, ..), or pairs
    (samples, rate): an array of floats or signed integers, (n,) or (n, channels), and the samples
    per second. Channels are averaged. An item fails if it has NaN, no samples, more than 16
    channels, or a rate outside 1,000..192,000. A file may be shorter than its header claims.

    Parameters
    ----------
    backbone : str, BackboneSpec or Backbone, default="tf_efficientnet_lite0"
        The name of a backbone, or what `load_backbone` returns.
    seconds : float, default=5.0
        Length of a window, about that of the events to distinguish. Silence pads a shorter sound.
    windows : int, default=12
        Maximum number of windows. They are adjacent; in a longer sound they are evenly spaced.
    pooling : {"mean", "mean+std"}, default="mean"
        How the embeddings of the windows are pooled.

    Notes
    -----
    Files need ``pip install 'featuretl[sound]'``. Weights are loaded on first use and never
    pickled, unless `backbone` is a Backbone.

    Examples
    --------
    >>> from featuretl import extract
    >>> rate = 16_000
    >>> t = np.arange(rate) / rate
    >>> low, high = np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 880 * t)
    >>> extract([(low, rate), (high, rate)], Sound(seconds=1)).shape
    (2, 1280)
    """

    backbone: Any = "tf_efficientnet_lite0"
    seconds: float = 5.0
    windows: int = 12
    pooling: str = "mean"

    def __post_init__(self) -> None:
        check_seconds("Sound", "seconds", self.seconds)
        check_int("Sound", "windows", self.windows, 1)
        check_option("Sound", "pooling", self.pooling, POOLINGS)

    @property
    def recipe(self) -> Recipe:
        """Everything that determines the embeddings (JSON)."""
        facts = {"spectrogram": SPECTROGRAM, "seconds": self.seconds, "windows": self.windows}
        return self._recipe(
            "windows", preprocess=self._preprocessing.recipe(), medium={"name": "sound", **facts}
        )

    @property
    def golden(self) -> tuple[np.ndarray, int]:
        """A rising tone of one second."""
        t = np.arange(16_000) / 16_000
        return np.sin(2 * np.pi * (200 + 1_500 * t) * t), 16_000

    def digest(self, item: Any) -> bytes:
        """Return the sha256 of the file's bytes, or of the samples and their rate."""
        if isinstance(item, (tuple, list)):
            samples, rate = _pair(item)
            return digest_of_array(samples, rate)
        return digest_of(item)

    def prepare(self, item: Any) -> list[Any]:
        """Return the network's input for each window. Raises ItemError."""
        inputs = []
        for samples, rate in self._windows_of(item):
            if not len(samples):
                raise ItemError("it ends before the length that its header claims")
            if not np.isfinite(samples).all():
                raise ItemError("NaN or infinity among its samples")
            window = np.zeros(self._length(rate), np.float32)
            window[: len(samples)] = samples.mean(axis=1)
            inputs.append(self._preprocessing(spectrogram(window, rate)))
        return inputs

    @property
    def _preprocessing(self) -> Any:
        # No crop: the edges of a spectrogram are the lowest notes and the ends of the sound.
        return replace(self._backbone.preprocessing, crop_pct=1.0, crop_mode="squash")

    def _length(self, rate: int) -> int:
        return max(1, round(self.seconds * rate))

    def _starts(self, n_samples: int, rate: int) -> list[int]:
        """Return the first samples of the windows of a sound of `n_samples` samples."""
        length = self._length(rate)
        if n_samples <= length * self.windows:
            return list(range(0, n_samples, length))
        return np.linspace(0, n_samples - length, self.windows).astype(int).tolist()

    def _windows_of(self, item: Any) -> Iterator[tuple[np.ndarray, int]]:
        """Yield windows, float32 (n, channels), and the rate; a file is read window by window."""
        if isinstance(item, (tuple, list)):
            samples, rate = _pair(item)
            for start in self._starts(len(samples), rate):
                yield samples[start : start + self._length(rate)], rate
            return
        soundfile = import_extra("soundfile", "Sound files need soundfile", "sound")
        with open_item(item) as file:
            try:
                with soundfile.SoundFile(file) as sound:
                    rate = _check_form(sound.samplerate, sound.channels, sound.frames)
                    for start in self._starts(sound.frames, rate):
                        sound.seek(start)
                        yield sound.read(self._length(rate), "float32", always_2d=True), rate
            except ItemError:
                raise
            except Exception as error:  # any error that a hostile header causes
                raise ItemError(getattr(error, "error_string", "") or describe(error)) from error


def _pair(item: Any) -> tuple[np.ndarray, int]:
    """Return the samples, float32 (n, channels), and the rate of an item in memory."""
    if len(item) != 2 or not isinstance(item[0], np.ndarray) or item[0].ndim not in (1, 2):
        raise ItemError(
            "a tuple; expected (samples, rate), an array (n,) or (n, channels) and an int"
        )
    samples, rate = item
    if samples.dtype.kind not in "fi":
        raise ItemError(f"samples of dtype {samples.dtype}; expected floats or signed integers")
    samples = (samples if samples.ndim == 2 else samples[:, None]).astype(np.float32)
    return samples, _check_form(rate, samples.shape[1], len(samples))


def _check_form(rate: Any, channels: int, n_samples: int) -> int:
    if n_samples < 1 or channels < 1:
        raise ItemError("it has no samples")
    if channels > MAX_CHANNELS:
        raise ItemError(f"{channels} channels, over the limit of {MAX_CHANNELS}")
    if not RATES[0] <= rate <= RATES[1]:
        raise ItemError(f"{rate} samples per second; expected {RATES[0]} to {RATES[1]}")
    return int(rate)


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the picture of finite samples (n,): uint8 (128, 250, 3), high notes at the top."""
    peak = np.abs(samples).max() or 1.0
    channels = [_channel(samples / peak, rate, *pair) for pair in WINDOWS_MS]
    return np.stack(channels, axis=2)


def _channel(samples: np.ndarray, rate: int, window_ms: int, hop_ms: int) -> np.ndarray:
    """Return the spectrogram of one resolution: uint8 (128, 250)."""
    n, hop = (max(1, round(rate * ms / 1000)) for ms in (window_ms, hop_ms))
    n_fft = scipy.fft.next_fast_len(round(rate * WINDOWS_MS[-1][0] / 1000), real=True)
    window = np.hanning(n + 1)[:-1].astype(np.float32)  # periodic
    frames = sliding_window_view(np.pad(samples, (n // 2, n)), n)[: len(samples) : hop]
    power = np.abs(scipy.fft.rfft(frames * window, n_fft)) ** 2
    bands = power @ mel_filters(rate, n_fft).T
    loudest = bands.max()
    if not loudest:  # no power within the bands
        return np.zeros((N_BANDS, WIDTH), np.uint8)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 10 ** (-RANGE_DB / 10)))
    picture = np.rint(255 * (1 + decibels / RANGE_DB)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(picture.T[::-1]))
    return np.asarray(image.resize((WIDTH, N_BANDS), Image.Resampling.BILINEAR))


@lru_cache(maxsize=8)
def mel_filters(rate: int, n_fft: int) -> np.ndarray:
    """Return triangular filters, float32 (128, n_fft // 2 + 1), for the mean power in mel bands.

    The bands have equal widths on the scale mel(f) = 2595 log10(1 + f / 700) (D. O'Shaughnessy,
    Speech Communication, 1987). Filters of bands above half the rate are zero.
    """
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(lowest, highest, N_BANDS + 2) / 2595) - 1)[:, None]
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    means = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-9)
    return means.astype(np.float32)
