"""Sound: the spectrogram's formula, equal results for all encodings, errors of hostile files."""

from __future__ import annotations

import io
import os
import pickle
import struct

import numpy as np
import pytest
import scipy.fft
import soundfile

from featuretl import MediaEmbedder, extract
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ItemError, ParameterError
from featuretl.media import Sound, sound
from featuretl.media.sound import N_BANDS, WIDTH, mel_filters, spectrogram

RATE = 16_000
TINY = BackboneSpec.of("test", "test_resnet", weights="random")


def tone(hz: float, rate: int = RATE, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def wav(samples: np.ndarray, subtype: str = "PCM_16", rate: int = RATE, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=kind)
    return file.getvalue()


def melody() -> np.ndarray:
    return np.concatenate([tone(hz, seconds=0.25) for hz in (262, 440, 1_319, 3_520)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


class TestSpectrogram:
    def test_the_filters_are_the_triangles_of_the_formula(self):
        n_fft = scipy.fft.next_fast_len(1_600, real=True)
        hz = np.arange(n_fft // 2 + 1) * RATE / n_fft
        mels = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 16_000)), N_BANDS + 2)
        edges = 700 * (10 ** (mels / 2595) - 1)
        for band in (0, 17, 64, 90):
            expected = np.interp(hz, edges[band : band + 3], [0, 1, 0])
            np.testing.assert_allclose(
                mel_filters(RATE, n_fft)[band], expected / expected.sum(), atol=1e-6
            )
        above = edges[:-2] > RATE / 2
        sums = mel_filters(RATE, n_fft).sum(axis=1)
        np.testing.assert_allclose(sums[~above], 1, atol=1e-5)
        assert above.any() and not sums[above].any()

    @pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
    def test_a_tone_is_a_line_at_its_pitch_whatever_the_rate(self, rate):
        picture = spectrogram(tone(1_000, rate), rate)
        assert picture.shape == (N_BANDS, WIDTH, 3)
        mels = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 16_000)), N_BANDS + 2)
        band = np.argmin(abs(mels[1:-1] - 2595 * np.log10(1 + 1_000 / 700)))
        rows = picture[:, 20:-20].astype(int).mean(axis=1).argmax(axis=0)
        assert abs(rows - (N_BANDS - 1 - band)).max() <= 1  # low frequencies at the bottom

    def test_time_goes_from_left_to_right(self):
        samples = np.concatenate([np.zeros(RATE // 2, np.float32), tone(1_000, seconds=0.5)])
        left, right = np.split(spectrogram(samples, RATE).astype(float), 2, axis=1)
        assert left[:, :100].max() == 0 < right.mean()

    def test_loudness_does_not_matter(self):
        loud, quiet = (spectrogram(melody() * gain, RATE) for gain in (1, 1e-3))
        assert np.abs(loud.astype(int) - quiet).max() <= 1

    def test_silence_and_what_is_below_all_bands_are_black(self):
        assert not spectrogram(np.zeros(RATE, np.float32), RATE).any()
        click = np.zeros(3, np.float32)
        click[1] = 1
        assert spectrogram(click, RATE).shape == (N_BANDS, WIDTH, 3)


ENCODINGS = [
    ("PCM_16", "WAV"),
    ("PCM_24", "WAV"),
    ("PCM_32", "WAV"),
    ("FLOAT", "WAV"),
    ("DOUBLE", "WAV"),
    ("PCM_U8", "WAV"),
    ("ULAW", "WAV"),
    ("PCM_16", "FLAC"),
    ("VORBIS", "OGG"),
]


def test_every_encoding_gives_the_same_embedding():
    files = [wav(melody(), *encoding[:1], kind=encoding[1]) for encoding in ENCODINGS]
    stereo = wav(np.stack([melody(), melody()], axis=1))
    integers = (melody() * 32_000).astype(np.int16), RATE
    X = extract([(melody(), RATE), integers, stereo, *files], Sound(TINY, seconds=1)).to_numpy()
    found = cosines(X, X[:1])
    assert found[:-4].min() > 0.9999  # without loss
    assert found.min() > 0.98  # 8 bits, u-law, Vorbis: 80 dB below the loudest there is noise


def test_cached_equals_fresh_and_one_by_one_equals_together(store, tmp_path, forwards):
    paths = []
    for hz in (200, 400, 800, 1_600):
        paths.append(tmp_path / f"{hz}.wav")
        paths[-1].write_bytes(wav(tone(hz)))
    medium = Sound(TINY, seconds=0.4, pooling="mean+std")
    fresh = extract(paths, medium, store=store).to_numpy()
    np.testing.assert_array_equal(extract(paths, medium, store=store).to_numpy(), fresh)
    assert len(forwards) == 4
    single = extract(paths[::-1], medium, batch_size=1, n_jobs=1).to_numpy()
    np.testing.assert_allclose(single[::-1], fresh, atol=1e-5)
    assert np.abs(fresh[0] - fresh[3]).max() > 0.01


def test_windows_lie_side_by_side_or_are_spread():
    samples = np.concatenate([tone(hz) for hz in (300, 600, 1_200, 2_400)])
    seen = Sound(TINY, seconds=1).prepare((samples, RATE))
    alone = [Sound(TINY, seconds=1).prepare((tone(hz), RATE))[0] for hz in (300, 600, 1_200, 2_400)]
    assert len(seen) == 4
    for part, whole in zip(seen, alone, strict=True):
        assert (part != whole).float().mean() < 0.02  # rounding of the phase at the seams
    from_file = Sound(TINY, seconds=1, windows=2).prepare(wav(samples))
    assert len(from_file) == 2  # the first and the last
    assert (from_file[1] != alone[3]).float().mean() < 0.3
    assert len(Sound(TINY, seconds=3).prepare((samples, RATE))) == 2  # and two seconds of silence


def test_the_network_sees_all_of_the_picture():
    preprocess = Sound(TINY).recipe["preprocess"]
    assert (preprocess["crop_pct"], preprocess["crop_mode"]) == (1.0, "squash")


def test_what_changes_values_changes_the_recipe():
    media = [Sound(TINY), Sound(TINY, seconds=1), Sound(TINY, windows=1), Sound()]
    media += [Sound(TINY, pooling="mean+std")]
    recipes = [str(medium.recipe) for medium in media]
    assert len(set(recipes)) == len(recipes)


def _claims_more(data: bytes) -> bytes:
    """A WAV file whose header promises 2 GiB."""
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", 2**31 - 1) + data[at + 4 :]


HOSTILE = {
    "empty": (b"", "."),
    "text": (b"<html>not a sound</html>", "[Ff]ormat"),
    "header only": (wav(tone(440))[:20], "."),
    "no samples": (wav(np.zeros(0, np.float32)), "it has no samples"),
    "nan": (wav(np.array([0, np.nan, 1], np.float32), "FLOAT"), "NaN or infinity"),
    "infinity": (wav(np.array([0, np.inf], np.float32), "FLOAT"), "NaN or infinity"),
    "channels": (wav(np.zeros((9, 17), np.float32)), "17 channels, over the limit of 16"),
    "slow": (wav(tone(1), rate=10), "10 samples per second; expected 1000 to 192000"),
    "fast": (wav(tone(1), rate=2_000_000), "2000000 samples per second"),
    "nothing of the kind": (3.5, "a float; expected a path or bytes"),
    "pair": (("a", RATE), r"a tuple; expected \(samples, rate\)"),
    "words": ((np.array(["a"]), RATE), "samples of dtype <U1"),
    "no pair": ((np.zeros(3),), r"expected \(samples, rate\)"),
    "empty pair": ((np.zeros(0), RATE), "it has no samples"),
    "rate": ((np.zeros(3), float("nan")), "nan samples per second"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sounds_are_named(name):
    item, match = HOSTILE[name]
    with pytest.raises(ItemError, match=match):
        Sound(TINY).prepare(item)


def test_a_header_that_promises_more_is_not_believed():
    whole, longer = (
        Sound(TINY).prepare(wav(melody())),
        Sound(TINY).prepare(_claims_more(wav(melody()))),
    )
    assert len(longer) == 1
    assert (whole[0] == longer[0]).all()


def test_every_cut_and_flipped_header_is_a_sound_or_named():
    data = wav(melody()[:2_000])
    rng = np.random.default_rng(0)
    medium = Sound(TINY, seconds=0.1)
    for _ in range(150):
        mutated = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        for at in rng.integers(min(44, len(mutated)), size=3):
            mutated[at] = rng.integers(256)
        try:
            assert medium.prepare(bytes(mutated))
        except ItemError as error:
            assert str(error)


def test_special_files_are_failed_rows_and_the_run_goes_on(tmp_path):
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "good.wav").write_bytes(wav(melody()))
    paths = [tmp_path / name for name in ("fifo.wav", "none.wav", "good.wav")] + [tmp_path]
    extraction = extract(list(map(str, paths)), Sound(TINY), on_error="nan")
    assert [failure.message for failure in extraction.failures] == [
        "not a regular file",
        "No such file or directory",
        "Is a directory",
    ]
    assert extraction.ok.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"windows": 0}, {"pooling": "median"}, {"seconds": "5"}]
)
def test_parameters_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(ParameterError, match=f"'{name}' parameter of Sound"):
        Sound(**wrong)


def test_it_pickles_small_also_after_use():
    embedder = MediaEmbedder(Sound(TINY), cache=None)
    embedder.transform([(melody(), RATE)])
    assert len(pickle.dumps(embedder)) < 1_000
    assert pickle.loads(pickle.dumps(embedder)).medium == Sound(TINY)


def test_without_soundfile_samples_still_work(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    assert len(Sound(TINY).prepare((melody(), RATE))) == 1
    with pytest.raises(Exception, match=r"pip install 'featuretl\[sound\]'") as caught:
        Sound(TINY).prepare(wav(melody()))
    assert not isinstance(caught.value, ItemError)  # it is not the file's fault
    assert sound.MAX_CHANNELS == 16
