"""The speed of a backbone is measured; no test asserts its value."""

from __future__ import annotations

from pathlib import Path

import pytest

from featuretl.backbones.backbone import load_spec
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError
from featuretl.ranking.speed import time_extraction

TINY = BackboneSpec.of("test", "test_resnet", weights="random")


def test_an_extraction_is_timed_and_nothing_is_kept(
    photos: list[str], cache: Path, forwards, monkeypatch
):
    monkeypatch.setattr("featuretl.ranking.speed._IMAGES_PER_THREAD", 2)
    rate = time_extraction(photos, TINY, n_jobs=2)
    assert rate > 0
    print(f"{rate:.0f} images/s")
    assert time_extraction(photos[:1], load_spec(TINY), n_jobs=1) > 0
    assert not cache.exists()
    assert not forwards


def test_a_bad_image_is_no_measurement(tmp_path: Path):
    (tmp_path / "bad.jpg").touch()
    with pytest.raises(ImageError):
        time_extraction([str(tmp_path / "bad.jpg")], TINY)
