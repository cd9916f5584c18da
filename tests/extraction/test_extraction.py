"""extract embeds each image once, in order, and names the images without an embedding."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError, ParameterError

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

both = pytest.mark.usefixtures("strategy")


@both
def test_cached_equals_fresh_equals_one_by_one(photos, store, counts):
    fresh = extract(photos, TINY, store=store)
    assert counts(fresh) == (24, 0, 0)
    cached = extract(photos, TINY, store=store)
    assert counts(cached) == (0, 24, 0)
    np.testing.assert_array_equal(cached.to_numpy(), fresh.to_numpy())
    alone = np.concatenate([extract([p], TINY, batch_size=1).to_numpy() for p in photos])
    np.testing.assert_allclose(alone, fresh.to_numpy(), rtol=1e-3, atol=1e-5)
    assert fresh.to_numpy().dtype == np.float32
    assert fresh.shape == (24, load_backbone("test_resnet", weights="random").n_features)


@both
def test_the_same_image_in_any_form_is_embedded_once(photos, store, tmp_path, forwards, counts):
    copy = shutil.copy(photos[0], tmp_path / "renamed.bin")
    data = Path(photos[0]).read_bytes()
    pixels = np.asarray(Image.open(photos[1]))
    images = [photos[0], copy, data, Path(photos[0]), pixels, Image.fromarray(pixels), photos[0]]
    rows = extract(images, TINY, store=store).to_numpy()
    assert len(forwards) == 2  # one for the file's bytes, one for the pixels
    assert (rows[[1, 2, 3, 6]] == rows[0]).all()
    assert (rows[4] == rows[5]).all()
    Path(copy).rename(tmp_path / "moved.jpg")
    assert counts(extract([tmp_path / "moved.jpg"], TINY, store=store)) == (0, 1, 0)


@pytest.fixture
def with_bad(photos, tmp_path):
    """Good and bad images; the bad ones are at 1, 3, 4, 5, 7, 8 and 9."""
    data = Path(photos[0]).read_bytes()
    bad = {
        "empty.jpg": b"",
        "truncated.jpg": data[: len(data) // 2],
        "same truncated.jpg": data[: len(data) // 2],
        "text.jpg": b"<svg>not a photograph</svg>",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    missing = str(tmp_path / "missing\x1b[31m.jpg")
    names = [str(tmp_path / name) for name in bad]
    return [photos[0], names[0], photos[1], *names[1:], photos[2], missing, None, np.zeros(3)]


BAD = [1, 3, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("stored", [True, False])
@both
def test_bad_images_are_named_rows_of_nan_and_shift_nothing(with_bad, photos, store, stored):
    store = store if stored else None
    for _ in range(2):
        extraction = extract(with_bad, TINY, store=store, on_error="nan", batch_size=2)
        assert [failure.index for failure in extraction.failures] == BAD
        assert extraction.statistics.failed == len(BAD)
        assert extraction.statistics.done == len(with_bad)
        rows = extraction.to_numpy()
        assert np.isnan(rows[BAD]).all()
        good = np.setdiff1d(np.arange(len(with_bad)), BAD)
        np.testing.assert_array_equal(extraction.ok.nonzero()[0], good)
        np.testing.assert_allclose(
            rows[good], extract(photos[:3], TINY).to_numpy(), rtol=1e-3, atol=1e-5
        )
        messages = {failure.name: failure.message for failure in extraction.failures}
        assert messages[with_bad[1]] == "empty: 0 bytes"
        assert "truncated" in messages[with_bad[3]]
        assert messages[with_bad[4]] == messages[with_bad[3]]
        assert "not an image" in messages[with_bad[5]]
        assert messages["image 8 (NoneType)"].startswith("a NoneType; expected a path")
        assert any("missing\\x1b[31m.jpg" in name for name in messages)


@both
def test_raising_comes_after_the_good_ones_are_kept(with_bad, store, forwards, counts):
    with pytest.raises(
        ImageError, match=r"7 of 10 images have no embedding .*empty: 0 bytes"
    ) as caught:
        extract(with_bad, TINY, store=store)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert counts(extract(with_bad, TINY, store=store, on_error="nan")) == (0, 3, 7)


@both
def test_no_images(store):
    assert extract([], TINY, store=store).to_numpy().shape[0] == 0


def test_the_memory_map_is_the_matrix(photos, store):
    extraction = extract(photos, TINY, store=store)
    mapped = extraction.memmap()
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, extraction.to_numpy())
    reverse = extract(photos[::-1], TINY, store=store).memmap()
    np.testing.assert_array_equal(reverse, mapped[::-1])
    assert len(list((store.path / "views").iterdir())) == 2
    np.testing.assert_array_equal(extract(photos, TINY).memmap(), mapped)


@both
def test_without_a_store_nothing_is_kept(photos, cache, counts):
    assert counts(extract(photos, TINY)) == (24, 0, 0)
    assert counts(extract(photos, TINY)) == (24, 0, 0)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"batch_size": 0},
            "'batch_size' parameter of extract must be an int >= 1 or 'auto'; got 0.",
        ),
        ({"on_error": "skip"}, "'on_error' parameter of extract must be one of 'raise', 'nan'"),
    ],
)
def test_parameters_are_refused_in_one_sentence(photos, parameters, message):
    with pytest.raises(ParameterError, match=message):
        extract(photos, TINY, **parameters)


@pytest.mark.parametrize("name", ["a\0b.jpg", "no\ud800.jpg", "x" * 5000, ""])
def test_a_path_that_cannot_exist_is_a_failure(photos, tmp_path, name):
    store = EmbeddingStore(tmp_path)
    for _ in range(2):
        found = extract([name, photos[0]], store=store, on_error="nan")
        assert [failure.index for failure in found.failures] == [0]
        assert np.isfinite(found.to_numpy()[1]).all()
