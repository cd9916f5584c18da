"""The batch size: fixed, or growing while that is faster."""

import numpy as np
import pytest

from featuretl import extract, load_backbone
from featuretl.extraction import batch_size as _batch_size
from featuretl.extraction.batch_size import FIRST, BatchSize


def settled(seconds_per_image):
    """Return the sizes that "auto" tries for a given time per image as a function of batch size."""
    size, seen = BatchSize("auto"), []
    size.limit(1000, grows=True)
    for _ in range(200):
        if size.current not in seen[-1:]:
            seen.append(size.current)
        size.record(size.current, size.current * seconds_per_image(size.current))
    return seen


def test_a_given_size_stays():
    size = BatchSize(7)
    for _ in range(100):
        size.record(7, 1.0)
    assert size.current == 7


def test_it_grows_while_images_get_faster_then_steps_back_and_stays():
    assert settled(lambda n: 1 / min(n, 64)) == [FIRST, 32, 64, 128, 64]


def test_it_stays_where_a_larger_one_is_slower():
    assert settled(lambda n: float(n)) == [FIRST, 2 * FIRST, FIRST]


def test_it_ends_at_the_most():
    assert settled(lambda n: 1 / n) == [16, 32, 64, 128, 256, 512]


def test_auto_is_one_size_where_it_does_not_grow():
    size, given = BatchSize("auto"), BatchSize(7)
    for each in (size, given):
        each.limit(256, grows=False)
        each.record(each.current, 1.0)
    assert (size.current, given.current) == (256, 7)


def test_the_last_batch_and_single_slow_ones_say_nothing():
    size = BatchSize("auto")
    size.limit(1000, grows=True)
    size.record(3, 1000.0)
    for seconds in (1.0, 1.0, 50.0, 1.0, 1.0):
        size.record(FIRST, seconds)
    for seconds in (1.0, 1.0, 70.0, 1.0, 1.0):
        size.record(2 * FIRST, seconds)
    assert size.current == 4 * FIRST


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_rows_follow_the_input_while_it_grows(photos, monkeypatch, n_jobs):
    monkeypatch.setattr(_batch_size, "FIRST", 1)
    monkeypatch.setattr(_batch_size, "_TRIALS", 1)
    monkeypatch.setattr(_batch_size, "_LEAST_GAIN", -np.inf)
    tiny = load_backbone("test_resnet", weights="random")
    expected = extract(photos, tiny, batch_size=24, n_jobs=1).to_numpy()
    found = extract(photos, tiny, n_jobs=n_jobs)
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-4, atol=1e-5)
