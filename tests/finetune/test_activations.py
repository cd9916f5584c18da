"""TODO"""

import pickle

import numpy as np
import pytest

from featuretl.exceptions import FeatureTLWarning, ImageError
from featuretl.finetune.activations import split_rows

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
