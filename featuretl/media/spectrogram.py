"""Sound as a picture: log-mel spectrograms of three resolutions, one per colour.

The recipe is that of K. Palanisamy, D. Singhania and A. Yao, "Rethinking CNN Models for Audio
Classification" (2020, arXiv:2007.11154): 128 mel bands; windows of 25, 50 and 100 ms every 10, 25 and
50 ms as the three channels of one picture, 128 x 250. Different from theirs: the spectrogram is taken at
the sound's own rate over bands in Hz, so that nothing is resampled; and decibels are counted from the
loudest point of a channel, 80 of them, so that how loud a recording is does not matter.
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

    Parameters
    ----------
    samples : ndarray of shape (n,), float32
        Finite. Silence gives black.
    rate : int
        Samples per second.
    """
    peak = np.abs(samples).max()
    if not peak:
        return np.zeros((N_BANDS, WIDTH, 3), np.uint8)
    channels = [_channel(samples / peak, rate, *pair) for pair in WINDOWS_MS]
    return np.stack(channels, axis=2)


def _channel(samples: np.ndarray, rate: int, window_ms: int, hop_ms: int) -> np.ndarray:
    """Return one resolution: uint8 (128, 250)."""
    n, hop = (max(1, round(rate * ms / 1000)) for ms in (window_ms, hop_ms))
    n_fft = scipy.fft.next_fast_len(round(rate * WINDOWS_MS[-1][0] / 1000), real=True)
    window = np.hanning(n + 1)[:-1].astype(np.float32)  # the periodic one
    frames = sliding_window_view(np.pad(samples, (n // 2, n)), n)[: len(samples) : hop]
    power = np.abs(scipy.fft.rfft(frames * window, n_fft)) ** 2
    bands = power @ mel_filters(rate, n_fft).T
    loudest = bands.max()
    if not loudest:  # all of it lies outside the bands
        return np.zeros((N_BANDS, WIDTH), np.uint8)
    decibels = 10 * np.log10(np.maximum(bands / loudest, 10 ** (-RANGE_DB / 10)))
    picture = np.rint(255 * (1 + decibels / RANGE_DB)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(picture.T[::-1]))
    return np.asarray(image.resize((WIDTH, N_BANDS), Image.Resampling.BILINEAR))


@lru_cache(maxsize=8)
def mel_filters(rate: int, n_fft: int) -> np.ndarray:
    """Return triangular filters, float32 (128, n_fft // 2 + 1): the mean power in each mel band.

    Equally wide on the scale mel(f) = 2595 log10(1 + f / 700) (D. O'Shaughnessy, Speech Communication,
    1987). Bands above half the rate are empty.
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
