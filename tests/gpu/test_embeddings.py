"""The guarantees of embeddings again, on a device; `make test-gpu` runs them."""

import threading

import numpy as np
import pytest
import torch

from featuretl import EmbeddingStore, extract, load_backbone
from featuretl.backbones.devices import own_stream
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError
from featuretl.runtimes.choice import least_cosine
from featuretl.runtimes.int8 import load_int8

pytestmark = pytest.mark.gpu

TINY = BackboneSpec.of("test", "test_resnet", weights="random")
MIB = 2**20


@pytest.mark.parametrize(
    ("name", "weights"),
    [("tf_efficientnet_lite0", "auto"), ("test_resnet", "random"), ("test_vit", "random")],
)
def test_embeddings_agree_with_the_cpu(name, weights, device, photos, same):
    spec = BackboneSpec.of("test", name, weights=weights)
    found, expected = (extract(photos[::3], spec, device=d).to_numpy() for d in (device, "cpu"))
    same(found, expected, 1e-3)


def test_one_image_alone_equals_many(backbone, photos, same):
    many = extract(photos, backbone, batch_size=len(photos), n_jobs=1).to_numpy()
    same(extract(photos, backbone, batch_size=1).to_numpy(), many)
    same(extract(photos, backbone, batch_size=5).to_numpy(), many)


def test_cached_equals_fresh(backbone, photos, tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    fresh = extract(photos, backbone, store=store)
    cached = extract(photos, backbone, store=store)
    assert (fresh.statistics.embedded, cached.statistics.embedded) == (len(photos), 0)
    np.testing.assert_array_equal(cached.to_numpy(), fresh.to_numpy())


def test_the_cpu_and_the_device_share_their_cache(device, photos, tmp_path):
    store = EmbeddingStore(tmp_path / "store")
    extract(photos[:4], TINY, store=store, device=device)
    assert extract(photos[:4], TINY, store=store, device="cpu").statistics.cached == 4


def test_threads_with_a_stream_each_give_equal_embeddings(backbone, photos, same):
    inputs = [backbone.prepare(np.asarray(photo)) for photo in _pixels(photos)]
    expected = backbone.embed(inputs)
    found = [[] for _ in range(4)]
    begin = threading.Barrier(len(found))

    def work(rows):
        begin.wait()
        with own_stream(backbone.device):
            for _ in range(5):
                rows.append(backbone.embed(inputs))

    threads = [threading.Thread(target=work, args=(rows,)) for rows in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows in found:
        assert len(rows) == 5
        for each in rows:
            same(each, expected)


def test_interrupted_and_resumed_is_uninterrupted(device, photos, tmp_path, monkeypatch, same):
    store = EmbeddingStore(tmp_path / "store")
    options = {"device": device, "batch_size": 3, "n_jobs": 2}

    def stop(statistics):
        if statistics.embedded >= 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("featuretl.extraction.engine._REPORT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, TINY, store=store, progress=stop, **options)
    resumed = extract(photos, TINY, store=store, **options)
    assert resumed.statistics.cached >= 6
    same(resumed.to_numpy(), extract(photos, TINY, **options).to_numpy())


def test_batches_too_large_for_memory_are_halved(device, on_gpu, photos, monkeypatch, same):
    backbone = load_backbone("test_resnet", weights="random", device=device)
    inputs = [backbone.prepare(p) for p in _pixels(photos[:8])] * 64
    expected = np.tile(backbone.embed(inputs[:8]), (64, 1))
    batch = backbone.batch(inputs)
    if on_gpu:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        limit = (torch.cuda.memory_reserved(device) + 100 * MIB) / total
        torch.cuda.set_per_process_memory_fraction(limit, backbone.device)
    else:
        forward = backbone.embedding.forward

        def limited(batch):
            if len(batch) > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(batch)

        monkeypatch.setattr(backbone.embedding, "forward", limited)
    try:
        found = backbone.forward(batch)
    finally:
        if on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0, backbone.device)
    assert backbone.forward._most < len(inputs)
    same(found, expected)


def test_tf32_outside_changes_nothing(backbone, photos):
    inputs = [backbone.prepare(p) for p in _pixels(photos[:4])]
    expected = backbone.embed(inputs)
    torch.set_float32_matmul_precision("high")
    try:
        np.testing.assert_array_equal(backbone.embed(inputs), expected)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_bfloat16_is_close_and_its_agreement_reported(backbone, photos, device, record_property):
    spec = BackboneSpec.of("test", backbone.spec.name, weights="random", precision="bfloat16")
    found = extract(photos, spec, device=device)
    cosine = least_cosine(extract(photos, backbone).to_numpy(), found.to_numpy())
    record_property("cosine", cosine)
    print(f"{spec.name}: least cosine of bfloat16 {cosine:.5f}")
    assert cosine > 0.99
    assert found.statistics.agreement > 0.99


def test_compiled_agrees(device, photos, same):
    found = extract(photos, TINY, device=device, runtime="compile")
    assert found.statistics.runtime == "compile"
    same(found.to_numpy(), extract(photos, TINY, device=device, runtime="torch").to_numpy())


def test_several_devices_share_the_images(device, on_gpu, photos, same):
    if on_gpu and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    devices = ["cuda:0", "cuda:1"] if on_gpu else [device, device]
    found = extract(photos, TINY, device=devices, n_jobs=4, batch_size=2)
    same(found.to_numpy(), extract(photos, TINY, device=device).to_numpy())


def test_int8_is_refused_in_one_sentence(device, on_gpu):
    int8 = load_backbone(
        "test_resnet", weights="random", precision="int8", device=device if on_gpu else "meta"
    )
    with pytest.raises(BackboneError, match=r"int8.*runs on the CPU only; use device='cpu'"):
        load_int8(int8)


def _pixels(photos):
    from featuretl.images.inputs import read

    return [read(photo).pixels() for photo in photos]
