"""Child processes prepare files as this process does, and may die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from featuretl import Backbone, extract, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import ImageError
from featuretl.extraction import engine
from featuretl.extraction.costs import Costs
from featuretl.extraction.preparers import Preparers, _Process
from featuretl.images.inputs import read

TINY = BackboneSpec.of("test", "test_resnet", weights="random")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test_resnet", weights="random")


def ready(n, prepare, costs=None):
    preparers = Preparers(n, (prepare, 0), costs or Costs())
    while not all(process.is_ready() for process in preparers._idle):
        time.sleep(0.05)
    return preparers


def test_children_prepare_files_as_this_process_does(backbone, photos, tmp_path):
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_bytes(Path(photos[0]).read_bytes()[:900])
    files = [*photos[:3], str(bad), missing]
    costs = Costs()
    with ready(1, backbone.preparation, costs) as preparers:
        found = preparers(files)
        for elsewhere in ([np.zeros((8, 8, 3), np.uint8)], ["memory://a.jpg"], []):
            assert preparers(elsewhere) is None
    for image, (content, tensor) in zip(files, found, strict=True):
        if image == missing:
            assert isinstance(content, ImageError)
            continue
        expected = read(image)
        assert (content.key, content.digest) == (expected.key, expected.digest)
        if image == str(bad):
            assert isinstance(tensor, ImageError)
        else:
            assert torch.equal(tensor, backbone.prepare(expected.pixels()))
            assert tensor.dtype == torch.uint8
    assert set(costs.seconds) == {"read", "hash", "decode", "resize"}


def test_children_reduce_jpegs_as_this_process_does(photos):
    small = load_backbone(image_size=64, decode="reduced", views="flip")
    pair = small.preparation, small.preprocessing.least_side
    preparers = Preparers(1, pair, Costs())
    with preparers:
        while (found := preparers(photos[:2])) is None:
            time.sleep(0.05)
    for image, (_, tensor) in zip(photos, found, strict=False):
        assert torch.equal(tensor, small.prepare(read(image).pixels(least_side=pair[1])))


def test_a_child_that_ends_costs_no_image(backbone, photos):
    with ready(1, backbone.preparation) as preparers:
        os.kill(preparers._idle[0].process.pid, signal.SIGKILL)
        found = preparers(photos[:2])
        assert found is None or [content.key for content, _ in found] == [
            read(photo).key for photo in photos[:2]
        ]
        assert preparers(photos[:2]) is None


def test_a_child_that_ends_while_it_prepares_costs_no_image(backbone, photos, monkeypatch):
    def lose(self, paths):
        raise EOFError

    with ready(1, backbone.preparation) as preparers:
        monkeypatch.setattr(_Process, "ask", lose)
        found = preparers(photos[:2])
    assert [content.key for content, _ in found] == [read(photo).key for photo in photos[:2]]
    assert all(
        torch.equal(x, backbone.prepare(read(p).pixels()))
        for p, (_, x) in zip(photos[:2], found, strict=True)
    )


@pytest.fixture
def always(monkeypatch):
    """Wait for children, however few the images are; yield the numbers of images they prepared."""
    by_children = []
    call = Preparers.__call__

    def wait(self, images):
        for process in list(self._idle):
            while not process.is_ready():
                time.sleep(0.05)
        found = call(self, images)
        by_children.append(len(found or ()))
        return found

    monkeypatch.setattr(engine, "_IMAGES_FOR_CHILDREN", 1)
    monkeypatch.setattr(Preparers, "__call__", wait)
    return by_children


@pytest.mark.usefixtures("pipelined")
def test_an_extraction_with_children_gives_the_same_rows(photos, tmp_path, always, store):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(Path(photos[0]).read_bytes()[:900])
    images = [*photos, str(bad), *photos[:4]]
    found = extract(images, TINY, store=store, n_jobs=2, batch_size=5, on_error="nan")
    assert sum(always) == len(images)
    assert [failure.index for failure in found.failures] == [24]
    statistics = found.statistics
    assert (statistics.embedded, statistics.cached, statistics.failed) == (24, 4, 1)
    expected = extract(images, TINY, n_jobs=1, on_error="nan").to_numpy()
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-3, atol=1e-5)
    again = extract(images, TINY, store=store, n_jobs=2, on_error="nan")
    assert again.statistics.embedded == 0


@pytest.mark.usefixtures("pipelined", "always")
def test_a_preparation_that_no_other_process_knows_stays_here(photos):
    def transform(image):
        pixels = np.asarray(image.resize((8, 6)), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    own = Backbone.of(torch.nn.Conv2d(3, 5, 3), transform, "own", device="cpu")
    rows = extract(photos, own, batch_size=7, n_jobs=2).to_numpy()
    assert rows.shape == (24, 5)
