"""The recipe of images, and images that cannot be prepared."""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from featuretl import ImageEmbedder, extract, extract_shards, load_backbone
from featuretl.backbones.spec import BackboneSpec
from featuretl.exceptions import BackboneError
from featuretl.extraction.image_encoder import ImageEncoder
from featuretl.images import Crop
from featuretl.images.decode import decode, golden_pixels
from featuretl.runtimes.graph import find_graph
from featuretl.store.keys import canonical_json, space_id


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("test_resnet", weights="random")


def test_an_image_too_long_and_thin_to_be_resized_is_a_failure():
    strip = np.zeros((1, 30_000, 3), np.uint8)  # would be resized to 256 x 7.7 million pixels
    extraction = extract([strip, strip[:, :500]], on_error="nan")
    assert [failure.index for failure in extraction.failures] == [0]
    assert "too long and thin" in extraction.failures[0].message


def test_the_keys_of_images_are_what_they_were_before_there_were_other_media():
    known = "948d641d9dbf940aa0d112d8e226290193500c890c0ad6b9c95167f19d506b9c"
    assert space_id(ImageEmbedder(cache=None).recipe(), 0) == known


def encoder_of(backbone, runtime="torch"):
    return ImageEncoder(backbone, None, "cpu", runtime, 0)


def embed(encoder, images):
    inputs = [encoder.prepare(encoder.read(image), decode, nullcontext) for image in images]
    return encoder.embed(inputs, nullcontext)


def test_the_golden_embedding_is_that_of_the_golden_image(tiny):
    encoder = encoder_of(tiny)
    assert encoder.golden.shape == (tiny.n_features,)
    np.testing.assert_array_equal(encoder.golden, embed(encoder, [golden_pixels()])[0])


def test_each_stage_is_measured_and_views_stand_side_by_side(photos):
    stages = []

    def stage(name):
        stages.append(name)
        return nullcontext()

    backbone = load_backbone("test_resnet", weights="random", views="flip")
    encoder = encoder_of(backbone)
    content = encoder.read(photos[0], stage)
    inputs = [encoder.prepare(content, decode, stage)] * 2
    rows = encoder.embed(inputs, stage)
    plain = embed(encoder_of(load_backbone("test_resnet", weights="random")), [photos[0]])
    assert rows.shape == (2, 2 * plain.shape[1])
    np.testing.assert_allclose(rows[0, : plain.shape[1]], plain[0], rtol=1e-3, atol=1e-5)
    expected = ["read", "hash", "decode", "resize", "normalise", "forward"]
    assert list(dict.fromkeys(stages)) == expected


def test_many_views_are_split_into_batches_of_the_largest_useful_size(pixels):
    encoder = encoder_of(load_backbone("test_resnet", weights="random", views="ten-crop"))
    expected = embed(encoder, [pixels])
    sizes, forward = [], encoder._workers[0].runtime
    encoder._workers[0].runtime = lambda batch: sizes.append(len(batch)) or forward(batch)
    rows = embed(encoder, [pixels] * 4)
    assert encoder.largest_batch == 32
    assert sizes == [32, 8]
    np.testing.assert_allclose(rows, np.repeat(expected, 4, axis=0), rtol=1e-3, atol=1e-4)


def test_only_a_backbone_that_is_not_loaded_has_facts_for_the_memo(tiny):
    assert encoder_of(tiny).memo_facts is None
    facts = [
        encoder_of(BackboneSpec.of("t", "test_resnet", weights="random", pooling=p)).memo_facts
        for p in ("avg", "max", "avg")
    ]
    assert facts[0] == facts[2] != facts[1]
    assert canonical_json(facts[0])


def test_devices_that_disagree_are_named(tiny):
    encoder = encoder_of(tiny)
    other = encoder_of(load_backbone("test_resnet", weights="random", pooling="max"))
    encoder._workers.append(other._workers[0])
    with pytest.raises(BackboneError, match=r"'cpu' does not give the embeddings .* 'cpu' gives"):
        len(encoder.golden)


def test_threads_take_the_devices_in_turn(tiny, pixels):
    encoder = encoder_of(tiny)
    used = []
    for number in range(2):
        worker = encoder_of(tiny)._workers[0]
        forward = worker.runtime
        worker.runtime = lambda batch, n=number, f=forward: used.append(n) or f(batch)
        encoder.__dict__.setdefault("_workers", []).append(worker)
    inputs = [encoder.prepare(encoder.read(pixels), decode, nullcontext)]
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            for _ in range(2):  # a thread stays with its device
                pool.submit(encoder.embed, inputs, nullcontext).result()
    assert used == [0, 0, 1, 1, 0, 0]


def test_the_runtime_is_chosen_once(tiny):
    encoder = encoder_of(tiny)
    with ThreadPoolExecutor(1) as pool:
        assert encoder.choose_runtime(pool, 1, 4) == ("torch", None)
        encoder._wanted_runtime = "another"
        assert encoder.choose_runtime(pool, 1, 4) == ("torch", None)


SMALL = {"image_size": 64, "crop_pct": 1.0}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two photographs of 640 x 427 as files, one of which is turned by its EXIF block."""
    folder = tmp_path_factory.mktemp("large")
    paths = [folder / "temple.jpg", folder / "flower.jpg"]
    exif = Image.Exif()
    exif[0x0112] = 6
    for path, image in zip(paths, load_sample_images().images, strict=True):
        Image.fromarray(image).save(path, quality=90, exif=exif)
    Image.open(paths[0]).save(paths[0], quality=90)
    return list(map(str, paths))


def test_the_recipe_of_reduced_decoding_is_another_one():
    full = load_backbone(device="cpu").recipe["preprocess"]
    for changes, ratio in (({}, 3), ({"views": "2x3"}, None), ({"views": "flip"}, 3)):
        found = load_backbone(decode="reduced", **changes).recipe["preprocess"]
        assert found.pop("decode_ratio", None) == ratio
        found.pop("views", None)
        assert found == full
    assert load_backbone(in_chans=5, decode="reduced").recipe == load_backbone(in_chans=5).recipe


def test_reduced_decoding_gives_nearly_the_same_embedding(tmp_path):
    for image in load_sample_images().images:
        large = Image.fromarray(image).resize((4 * 640, 4 * 427), Image.Resampling.BICUBIC)
        large.save(tmp_path / "large.jpg", quality=90)
        full, reduced = (
            ImageEmbedder(decode=decode).transform([tmp_path / "large.jpg"])[0]
            for decode in ("full", "reduced")
        )
        assert 0.9995 < full @ reduced / np.linalg.norm(full) / np.linalg.norm(reduced) < 1 - 1e-6


def test_every_path_gives_the_same_reduced_embedding(large, tmp_path):
    spec = BackboneSpec.of("test", "test_resnet", weights="random", decode="reduced", **SMALL)
    expected = extract(large, spec, runtime="torch").to_numpy()
    full = extract(large, replace(spec, decode="full"), runtime="torch").to_numpy()
    assert (np.abs(expected - full).max(axis=1) > 1e-5).all()
    for images, options in (
        (pd.DataFrame({"path": large}), {}),
        ([Path(path).read_bytes() for path in large], {}),
        (large, {"decode_timeout": 60}),
        (large, {"n_jobs": 1, "batch_size": 1}),
    ):
        found = extract(images, spec, runtime="torch", **options).to_numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in large:
            tar.add(path, Path(path).name)
    shards = extract_shards([tmp_path / "a.tar"], spec, store=tmp_path / "shared", runtime="torch")
    np.testing.assert_allclose(
        np.concatenate([rows for rows, _, _ in shards.shards()]), expected, rtol=1e-5, atol=1e-6
    )
    whole = [
        Crop(path, 0, 0, *Image.open(path).size[:: -1 if "fl" in path else 1]) for path in large
    ]
    pixels = [np.asarray(ImageOps.exif_transpose(Image.open(path))) for path in large]
    for decoded_in_full in (whole, pixels):
        found = extract(decoded_in_full, spec, runtime="torch").to_numpy()
        np.testing.assert_allclose(found, full, rtol=1e-5, atol=1e-6)


def test_reduced_decoding_needs_no_pytorch_either(large):
    spec = BackboneSpec.of("test", "tf_efficientnet_lite0", decode="reduced")
    graph = find_graph(spec, None, None)
    assert graph.recipe == load_backbone(spec.name, decode="reduced", device="cpu").recipe
    assert graph.preprocessing.least_side == 768
