"""Sources of activations: cached, fresh and stored ones give the same batches."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from featuretl.backbones.views import STRENGTHS
from featuretl.exceptions import FeatureTLWarning, ImageError
from featuretl.finetune import activations
from featuretl.finetune.activations import (
    CachedActivations,
    FreshActivations,
    _prefetch,
    split_rows,
)
from featuretl.finetune.trunk import Trunk

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_a_callable_sees_every_image_every_time(quick, photos, labels):
    seen = []

    def augment(image):
        seen.append(image.size)
        return image.transpose(0)

    with pytest.warns(FeatureTLWarning, match="augment is a function"):
        model = quick(augment=augment, cache_trunk=True).fit(photos, labels)
    assert len(seen) == 2 * 24
    assert not model.cache_trunk_.cached


def test_cached_is_fresh(quick, photos, labels):
    cached = quick(cache_trunk=True).fit(photos, labels)
    fresh = quick(cache_trunk=False).fit(photos, labels)
    assert cached.cache_trunk_.cached
    assert not fresh.cache_trunk_.cached
    np.testing.assert_allclose(cached.predict_proba(photos), fresh.predict_proba(photos), atol=0.02)
    elsewhere = pickle.loads(pickle.dumps(cached)).set_params(cache=None)
    np.testing.assert_allclose(
        elsewhere.predict_proba(photos), cached.predict_proba(photos), atol=1e-5
    )


@pytest.mark.parametrize("cache_trunk", [True, False])
def test_a_bad_image_is_named(quick, photos, labels, tmp_path, cache_trunk):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        quick(cache_trunk=cache_trunk).fit([*photos, str(bad)], [*labels, "flower"])


def test_a_bad_image_at_prediction_is_named(fitted, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        fitted.predict([str(bad)])


def test_parts_have_no_rest_of_one():
    assert [len(part) for part in split_rows(np.arange(33), 32)] == [17, 16]
    assert [len(part) for part in split_rows(np.arange(5), 32)] == [5]
    assert np.concatenate(split_rows(np.arange(100), 7)).tolist() == list(range(100))


class Rows:
    """A stand-in for `Extraction`: row i is filled with i + `offset`."""

    def __init__(self, offset, d=12):
        self.offset, self.shape = offset, (10, d)

    def rows(self, part):
        return np.repeat(np.float32(part)[:, None] + self.offset, self.shape[1], axis=1)

    def chunks(self, rows):
        for start in range(0, self.shape[0], rows):
            yield self.rows(np.arange(start, min(start + rows, self.shape[0])))


def cached(noise=0.0, shape=(3, 2, 2)):
    return CachedActivations([Rows(0.0), Rows(0.5)], shape, noise, torch.device("cpu"))


PARTS = [np.array([3, 1]), np.array([7])]


def test_without_a_seed_the_first_view_is_read():
    batches = list(cached(noise=0.1).batches(PARTS))
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 2, 2), (1, 3, 2, 2)]
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[3, 1], [7]]


def test_a_seed_chooses_a_view_of_each_image():
    parts = [np.arange(10)] * 4
    batches = torch.stack(list(cached(shape=(12,)).batches(parts, [0, 1])))
    assert set(np.unique(batches - torch.arange(10)[:, None])) == {0.0, 0.5}
    assert not torch.equal(batches[0], batches[1])
    again = torch.stack(list(cached(shape=(12,)).batches(parts, [0, 1])))
    assert torch.equal(again, batches)
    other = torch.stack(list(cached(shape=(12,)).batches(parts, [0, 2])))
    assert not torch.equal(other, batches)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_activations_on_a_device_are_those_in_main_memory(noise, monkeypatch):
    expected = [list(cached(noise).batches(PARTS, seed)) for seed in (None, [0, 1])]
    monkeypatch.setattr(activations, "room_on", lambda device: 2**20)
    monkeypatch.setattr(activations, "_ROWS_PER_COPY", 4)
    source = cached(noise)
    found = [list(source.batches(PARTS, seed)) for seed in (None, [0, 1])]
    assert source._on_device is not None
    for some, others in zip(found, expected, strict=True):
        assert all(map(torch.equal, some, others))


def test_noise_multiplies_each_value_by_a_factor_around_1():
    parts = [np.arange(1, 10)] * 50
    plain, noisy = (
        torch.stack(list(cached(noise, (12,)).batches(parts, [0]))) for noise in (0.0, 0.1)
    )
    factor = noisy[0] / plain[0]  # later batches draw other views
    assert len(factor.unique()) > 100
    assert float(factor.mean()) == pytest.approx(1, abs=0.05)
    assert float(factor.std()) == pytest.approx(0.1, abs=0.03)


def fresh(photos, backbone, augment="strong", n_jobs=1):
    return FreshActivations(photos, backbone, None, STRENGTHS[augment], n_jobs)


def test_a_view_depends_on_the_seed_and_the_image_alone(photos, tiny):
    parts = [np.array([0, 5]), np.array([9])]
    first = torch.cat(list(fresh(photos, tiny).batches(parts, [0, 3])))
    parts = [np.array([9]), np.array([5, 0])]
    second = torch.cat(list(fresh(photos, tiny, n_jobs=4).batches(parts, [0, 3])))
    assert torch.equal(first, second[[2, 1, 0]])
    other = torch.cat(list(fresh(photos, tiny).batches(parts, [0, 4])))
    assert not torch.equal(other, second)


def test_without_a_seed_or_a_strength_images_are_prepared_as_in_evaluation(photos, tiny, pixels):
    images = [pixels, pixels[:100, :200]]
    expected = tiny.batch([tiny.prepare(image) for image in images])
    parts = [np.arange(2)]
    for augment, seed in (("strong", None), ("none", None), ("none", [0])):
        assert torch.equal(next(fresh(images, tiny, augment).batches(parts, seed)), expected)


def test_images_are_read_in_order_and_at_most_three_parts_ahead(monkeypatch):
    begun = []

    def prepare(index):
        begun.append(index)
        time.sleep(0.001 * (index % 3))
        return index

    parts = np.array_split(np.arange(100), 15)
    largest = len(parts[0])
    with ThreadPoolExecutor(4) as pool:
        for number, index in enumerate(_prefetch(pool, prepare, parts)):
            assert index == number
            assert max(begun) < number + 3 * largest
    assert sorted(begun) == list(range(100))
    with ThreadPoolExecutor(1) as pool:
        assert list(_prefetch(pool, prepare, [])) == []


def test_prediction_computes_what_the_store_does_not_have(
    quick, photos, labels, tmp_path, monkeypatch
):
    model = quick(cache=tmp_path, cache_trunk=True).fit(photos[6:18], labels[6:18])
    computed = []
    embed = Trunk.embed
    monkeypatch.setattr(
        Trunk, "embed", lambda t, inputs: computed.append(len(inputs)) or embed(t, inputs)
    )
    mixed = model.predict_proba(photos)
    assert sum(computed) == 12  # the other 12 are in the store
    monkeypatch.undo()
    model.set_params(cache=None)
    np.testing.assert_allclose(model.predict_proba(photos), mixed, atol=1e-5)
