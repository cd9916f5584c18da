"""Log-mel spectrograms of three resolutions, as the channels of one picture.

The recipe is that of K. Palanisamy, D. Singhania and A. Yao, "Rethinking CNN Models for Audio
Classification" (2020, arXiv:2007.11154): 128 mel bands; windows of 25, 50 and 100 ms every 10, 25 and
50 ms as the three channels of a 128 x 250 picture. There are two differences. The spectrogram is taken
at the sound's own rate over bands in Hz, so that nothing is resampled. Decibels are relative to the
loudest point of a channel, down to -80, so that the volume of a recording has no effect.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

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


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the picture of a sound: uint8 (128, 250, 3), low frequencies at the bottom.

    `samples` is float32 (n,), finite; `rate` is the samples per second. Silence is black.
    """
    peak = np.abs(samples).max()
    if not peak:
        return np.zeros((N_BANDS, WIDTH, 3), np.uint8)
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

    The bands have equal widths on the scale mel(f) = 2595 log10(1 + f / 700) (D. O'Shaughnessy, Speech
    Communication, 1987). Filters of bands above half the rate are zero.
    """
    edges = _hz(np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), N_BANDS + 2))[:, None]
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    means = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-9)
    return means.astype(np.float32)


def _mel(hz: float) -> float:
    return 2595 * np.log10(1 + hz / 700)


def _hz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)
