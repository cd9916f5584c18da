"""A pipeline feeds the CPU here: what it embeds, how much it holds, and how it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from featuretl import Backbone, EmbeddingStore, extract, load_backbone
from featuretl.backbones import devices
from featuretl.backbones.eager import TorchRuntime
from featuretl.backbones.embedding import Embedding
from featuretl.backbones.spec import BackboneSpec
from featuretl.extraction import batch_size, pipeline
from featuretl.extraction.engine import Run
from featuretl.extraction.image_encoder import ImageEncoder, _Worker

TINY = BackboneSpec.of("test", "test_resnet", weights="random")

both = pytest.mark.usefixtures("strategy")


@pytest.fixture(scope="module")
def expected(photos):
    """The embeddings of the photographs, computed by each thread."""
    return extract(photos, TINY).to_numpy()


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("pipelined")
@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("device", ["cpu", ["cpu", "cpu"]])
def test_all_sizes_and_devices_give_the_same_rows_once(photos, expected, forwards, device, size):
    images = [*photos, *photos[::-1]]
    extraction = extract(images, TINY, device=device, batch_size=size, n_jobs=3)
    assert_same(extraction.to_numpy(), np.concatenate([expected, expected[::-1]]))
    assert sorted(forwards) == sorted({bytes(key) for key in extraction.keys})
    statistics = extraction.statistics
    assert (statistics.embedded, statistics.cached, statistics.failed) == (24, 24, 0)


@pytest.mark.usefixtures("pipelined")
def test_batches_are_formed_across_threads_and_one_thread_computes_for_each_device(
    photos, monkeypatch
):
    start, seen = _Worker.start, []

    def watched(self, staged, stage):
        seen.append((id(self), threading.get_ident(), len(staged)))
        time.sleep(0.01)  # so that the other device takes some
        return start(self, staged, stage)

    monkeypatch.setattr(_Worker, "start", watched)
    extract(photos, TINY, device=["cpu", "cpu"], batch_size=5, n_jobs=4)
    assert len({thread for _, thread, _ in seen}) == len({worker for worker, _, _ in seen}) == 2
    assert sorted(size for _, _, size in seen) == [4, 5, 5, 5, 5]


@pytest.mark.usefixtures("pipelined")
@pytest.mark.parametrize("n", [1, 2])
def test_at_most_three_batches_for_each_device_are_held(photos, monkeypatch, n):
    size, n_jobs, held, most, memories = 2, 3, set(), [0], []
    prepare, append, staging = ImageEncoder.prepare, Run._append, devices.staging_memory

    def count_prepared(self, content, decoder, stage):
        held.add(content.key)
        most.append(len(held))
        return prepare(self, content, decoder, stage)

    def count_appended(self, images, rows):
        time.sleep(0.02)  # the threads are faster
        assert all(image.input is None for image in images)
        held.difference_update(image.key for image in images)
        return append(self, images, rows)

    def count_memories(images, example, device):
        memories.append(images)
        return staging(images, example, device)

    monkeypatch.setattr(ImageEncoder, "prepare", count_prepared)
    monkeypatch.setattr(Run, "_append", count_appended)
    monkeypatch.setattr(devices, "staging_memory", count_memories)
    extract(photos, TINY, device=["cpu"] * n, batch_size=size, n_jobs=n_jobs)
    # A batch's memory is free before its rows are appended: one more batch for each device.
    waiting = n_jobs * pipeline._IMAGES_PER_TASK
    assert size * n * 3 <= max(most) <= size * n * (3 + 1) + waiting
    assert memories == [size] * 3 * n


def test_while_a_batch_is_computed_the_next_one_is_started_and_a_third_one_filled(monkeypatch):
    monkeypatch.setattr(pipeline, "_IMAGES_PER_TASK", 1)
    started, filled, appended = [], threading.Event(), []

    class Worker:
        backbone = SimpleNamespace(device=torch.device("cpu"))

        def start(self, staged, stage):
            started.append(next_started := threading.Event())
            number, rows = len(started) - 1, staged[:, 0, 0].float().numpy().copy()
            if number:
                started[number - 1].set()

            def wait():
                if number == 0:
                    assert next_started.wait(10)
                    assert filled.wait(10)
                return rows

            return wait

    def prepare(indices):
        if 6 in indices:  # the first image of the fourth batch, which waits for memory
            filled.set()
        inputs = [torch.full((3, 2, 2), index, dtype=torch.uint8) for index in indices]
        return [SimpleNamespace(index=i, input=x) for i, x in zip(indices, inputs, strict=True)]

    def append(images, rows):
        appended.extend((image.index, *row) for image, row in zip(images, rows, strict=True))

    def stage(name):
        return contextlib.nullcontext()

    with ThreadPoolExecutor(1) as pool:
        run = pipeline.Pipeline([Worker()], prepare, append, batch_size.BatchSize(2), stage)
        yielded = [image.index for images in run.batches(pool, 1, [*range(20)]) for image in images]
    assert yielded == list(range(20))
    assert appended == [(index, index, index) for index in range(20)]


@pytest.mark.usefixtures("pipelined")
def test_large_inputs_make_smaller_batches(photos, expected, monkeypatch):
    input_bytes = load_backbone("test_resnet", weights="random").prepare(
        np.zeros((9, 9, 3), np.uint8)
    )
    monkeypatch.setattr(pipeline, "_MOST_STAGED_BYTES", 5 * input_bytes.nbytes + 1)
    start, sizes = _Worker.start, []
    monkeypatch.setattr(
        _Worker, "start", lambda self, x, stage: sizes.append(len(x)) or start(self, x, stage)
    )
    assert_same(extract(photos, TINY, batch_size=1000).to_numpy(), expected)
    assert sizes == [5, 5, 5, 5, 4]


@pytest.mark.usefixtures("pipelined")
def test_auto_is_one_size_and_the_last_batch_is_padded(photos, expected, monkeypatch):
    monkeypatch.setattr(_Worker, "largest_batch", 7)
    start, sizes = _Worker.start, []
    monkeypatch.setattr(
        _Worker, "start", lambda self, x, stage: sizes.append(len(x)) or start(self, x, stage)
    )
    assert_same(extract(photos, TINY, runtime="torch").to_numpy(), expected)
    assert sizes == [7, 7, 7, 4]
    sizes.clear()
    assert_same(extract(photos[:5], TINY, runtime="torch").to_numpy(), expected[:5])
    assert sizes == [7]


@both
def test_out_of_memory_halves_batches_and_loses_nothing(photos, store, expected, monkeypatch):
    forward, sizes = Embedding.forward, []

    def small(self, batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    load_backbone("test_resnet", weights="random")
    monkeypatch.setattr(Embedding, "forward", small)
    extraction = extract(photos, TINY, store=store, batch_size=12, n_jobs=2, runtime="torch")
    assert extraction.statistics.embedded == 24
    assert max(sizes) > 3
    assert_same(extraction.to_numpy(), expected)


@pytest.mark.usefixtures("pipelined")
def test_compiled_pytorch_gets_batches_of_one_size(photos, expected, monkeypatch):
    sizes = []

    def compiled(module, **options):
        return lambda batch: sizes.append(len(batch)) or module(batch)

    monkeypatch.setattr(torch, "compile", compiled)
    extraction = extract(photos, TINY, batch_size=20, runtime="compile")
    assert_same(extraction.to_numpy(), expected)
    assert set(sizes) == {16}


@pytest.mark.usefixtures("pipelined")
def test_views_stand_side_by_side(photos):
    spec = BackboneSpec.of("test", "test_resnet", weights="random", views="ten-crop")
    rows = extract(photos[:5], spec, batch_size=4).to_numpy()
    backbone = load_backbone("test_resnet", weights="random", views="ten-crop")
    pixels = [np.asarray(Image.open(path)) for path in photos[:5]]
    assert_same(rows, backbone.embed([backbone.prepare(image) for image in pixels]))


@pytest.mark.usefixtures("pipelined")
def test_a_transform_of_ones_own_is_staged_as_float(photos):
    def transform(image):
        pixels = np.asarray(image.resize((8, 6)), np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    own = Backbone.of(torch.nn.Conv2d(3, 5, 3), transform, "own", device="cpu")
    rows = extract(photos, own, batch_size=7).to_numpy()
    inputs = [own.prepare(np.asarray(Image.open(path))) for path in photos]
    np.testing.assert_allclose(rows, own.embed(inputs), rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("pipelined")
def test_images_are_decoded_in_child_processes(photos, expected, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(Path(photos[0]).read_bytes()[:900])
    extraction = extract(
        [bad, *photos], TINY, decode_timeout=30.0, n_jobs=2, batch_size=7, on_error="nan"
    )
    assert [failure.index for failure in extraction.failures] == [0]
    assert_same(extraction.to_numpy()[1:], expected)


@both
def test_every_stage_is_measured(photos, store):
    costs = extract(photos, TINY, store=store).statistics.costs
    stages = {"read", "hash", "decode", "resize", "normalise", "forward", "commit", "other"}
    assert set(costs) == stages
    assert all(costs[stage] > 0 for stage in stages - {"other"})


def break_decoder(monkeypatch):
    prepare, seen = ImageEncoder.prepare, []

    def broken(self, content, decoder, stage):
        seen.append(content)
        if len(seen) == 14:
            raise ZeroDivisionError
        return prepare(self, content, decoder, stage)

    monkeypatch.setattr(ImageEncoder, "prepare", broken)


def break_forward(monkeypatch):
    run, seen = TorchRuntime._run, []

    def broken(self, batch):
        seen.append(batch)
        if len(seen) == 6:
            raise ZeroDivisionError
        return run(self, batch)

    monkeypatch.setattr(TorchRuntime, "_run", broken)


def break_late(monkeypatch):
    """As on CUDA, where an error of a computation is raised when its result is awaited."""
    start, seen = TorchRuntime.start, []

    def started(self, batch):
        wait = start(self, batch)
        seen.append(batch)
        number = len(seen)

        def late():
            if number == 6:
                raise ZeroDivisionError
            return wait()

        return late

    monkeypatch.setattr(TorchRuntime, "start", started)


def break_append(monkeypatch):
    append, seen = Run._append, []

    def broken(self, images, rows):
        seen.append(images)
        if len(seen) == 3:
            raise ZeroDivisionError
        return append(self, images, rows)

    monkeypatch.setattr(Run, "_append", broken)


def nothing(monkeypatch):
    pass


@both
@pytest.mark.parametrize(
    "damage", [break_decoder, break_forward, break_late, break_append, nothing]
)
def test_an_error_anywhere_ends_the_run_and_leaves_no_thread_and_no_claim(
    photos, cache, expected, monkeypatch, damage
):
    told = []

    def progress(statistics):
        told.append(statistics.embedded)
        if damage is nothing and len(told) == 3:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        damage(patch)
        patch.setattr("featuretl.extraction.engine._REPORT_SECONDS", -1.0)
        with pytest.raises(ZeroDivisionError):
            extract(
                photos,
                TINY,
                store=EmbeddingStore(cache),
                batch_size=3,
                n_jobs=3,
                runtime="torch",
                progress=progress,
            )
    assert not [t for t in threading.enumerate() if t.name.startswith("featuretl")]
    store = EmbeddingStore(cache)
    kept = sum(space.rows for space in store.info())
    assert kept == told[-1] < 24
    resumed = extract(photos, TINY, store=store)
    assert (resumed.statistics.embedded, resumed.statistics.cached) == (24 - kept, kept)
    assert_same(resumed.to_numpy(), expected)


@pytest.mark.usefixtures("pipelined")
def test_after_an_error_the_rest_of_the_images_is_not_read(photos, monkeypatch):
    monkeypatch.setattr(_Worker, "start", lambda *args: 1 / 0)
    read, seen = ImageEncoder.read, []
    monkeypatch.setattr(
        ImageEncoder, "read", lambda self, x, stage: seen.append(x) or read(self, x, stage)
    )
    with pytest.raises(ZeroDivisionError):
        extract(
            [photos[i % 24] for i in range(20_000)], TINY, batch_size=4, n_jobs=2, runtime="torch"
        )
    assert len(seen) < 200
