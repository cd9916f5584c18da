"""Preprocessing equals timm's evaluation transform."""

from dataclasses import asdict, replace

import numpy as np
import PIL
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config

from featuretl import load_backbone
from featuretl.backbones.preprocess import PillowPreprocessing
from featuretl.exceptions import ImageError

MODELS = [
    "tf_efficientnet_lite0",
    "resnet50",
    "inception_v3",
    "convnext_tiny",
    "beit_base_patch16_224",
]
PILLOW = int(PIL.__version__.split(".")[0])
SHAPES = [(427, 640), (640, 427), (200, 90), (20, 33), (224, 224), (1, 1)]


def timms_transform(preprocessing, **options):
    config = asdict(preprocessing)
    del config["decode_ratio"]
    return create_transform(**config, is_training=False, **options)


def timms(preprocessing, pixels):
    return timms_transform(preprocessing)(Image.fromarray(pixels))


def levels_apart(preprocessing, pixels):
    """Return the differences from timm's transform, in levels of 255."""
    ours = preprocessing.normalise(preprocessing(pixels)[None])[0]
    std = torch.tensor(preprocessing.std)[:, None, None]
    return (ours - timms(preprocessing, pixels)).abs() * std * 255


@pytest.fixture(scope="module")
def preprocessing():
    return load_backbone().preprocessing


@pytest.mark.parametrize("name", MODELS)
def test_of_a_model_is_what_its_configuration_asks_for(name, pixels):
    model = timm.create_model(name)
    preprocessing = type(load_backbone().preprocessing).of(model.pretrained_cfg)
    config = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    expected = create_transform(**config, is_training=False)(Image.fromarray(pixels))
    found = preprocessing.normalise(preprocessing(pixels)[None])[0]
    assert found.shape == expected.shape
    assert float((found - expected).abs().mean()) < 0.002


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("size", [(224, 224), (192, 256)])
def test_every_mode_equals_timms(preprocessing, pixels, interpolation, crop_mode, crop_pct, size):
    mode = replace(
        preprocessing,
        interpolation=interpolation,
        crop_mode=crop_mode,
        crop_pct=crop_pct,
        input_size=(3, *size),
    )
    for height, width in SHAPES:
        if PILLOW < 13 and (height > width or size[0] < size[1]):
            continue  # where more rows than columns go, featuretl resizes in the order of Pillow 13
        apart = levels_apart(mode, pixels[:height, :width].copy())
        assert apart.shape == (3, *size)
        assert float(apart.mean()) < 0.2  # of one level: ties are rounded differently
        assert float(apart.max()) <= 8  # in enlarged images of a few pixels; 1 elsewhere


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(224, 224), (192, 256)])
def test_without_pytorch_the_pixels_are_exactly_timms(
    preprocessing, pixels, interpolation, crop_mode, size
):
    facts = preprocessing.recipe() | {"interpolation": interpolation, "crop_mode": crop_mode}
    facts["input_size"] = [3, *size]
    mode = PillowPreprocessing.of_recipe(facts)
    assert mode.recipe() | {"implementation": ""} == facts | {"implementation": ""}
    transform = timms_transform(mode, normalize=False)
    if f"interpolation={interpolation}" not in repr(transform):
        pytest.skip("timm 1.0.22 resizes bilinearly to inputs that are not square")
    for height, width in SHAPES:
        image = pixels[:height, :width].copy()
        found = mode(image)
        assert (found.shape, found.dtype) == ((3, *size), np.uint8)
        np.testing.assert_array_equal(found, transform(Image.fromarray(image)).numpy())
    batch = np.stack([found, found[:, ::-1]])
    expected = preprocessing.normalise(torch.from_numpy(batch.copy()))
    np.testing.assert_allclose(mode.normalise(batch), expected, atol=1e-6)
    assert mode.normalise(batch).dtype == np.float32


def test_without_pytorch_other_channels_and_thin_images_are_as_with_it(preprocessing, pixels):
    grey = PillowPreprocessing.of_recipe(preprocessing.recipe() | {"input_size": [1, 64, 64]})
    assert grey(pixels).shape == (1, 64, 64)
    with_torch = replace(preprocessing, input_size=(1, 64, 64), mean=(0.5,), std=(0.5,))
    apart = np.abs(grey(pixels).astype(int) - with_torch(pixels).numpy())
    assert apart.max() <= 1
    for shape in [(300, 300, 4), (1, 100_000, 3)]:
        messages = []
        for prepare in (preprocessing, PillowPreprocessing.of_recipe(preprocessing.recipe())):
            with pytest.raises(ImageError) as error:
                prepare(np.zeros(shape, np.uint8))
            messages.append(str(error.value))
        assert messages[0] == messages[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([0.875, 0.9, 1.0]))
def test_every_shape_is_resized_and_cropped_where_timm_does(height, width, crop_pct):
    mode = replace(load_backbone().preprocessing, crop_pct=crop_pct)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack(
        [255 * x // width, 255 * y // height, 255 * (x + y) // (width + height)], axis=2
    )
    assert float(levels_apart(mode, ramp.astype(np.uint8)).max()) <= 2.01


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_embeddings_are_those_of_timms_transform(preprocessing, pixels, interpolation, crop_mode):
    backbone = load_backbone()
    mode = replace(preprocessing, interpolation=interpolation, crop_mode=crop_mode)
    images = [pixels, pixels[:200, :90].copy(), pixels[50:370, 100:560].copy()]
    reference = torch.stack([timms(mode, image) for image in images])
    with torch.inference_mode():
        features = backbone.model.forward_features(reference)
        expected = backbone.model.forward_head(features, pre_logits=True).numpy()
    found = backbone.embed([mode(image) for image in images])
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() >= 0.9999


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_photographs_of_any_size_are_embedded_as_with_timms_transform(
    preprocessing, photos, interpolation, crop_mode
):
    """Of 125 sizes in each of four modes, those whose pixels differ most are embedded both ways."""
    mode = replace(preprocessing, interpolation=interpolation, crop_mode=crop_mode)
    transform = timms_transform(mode, normalize=False)
    sources = [Image.open(path).convert("RGB") for path in photos[:8]]
    rng = np.random.default_rng(0)
    sizes = [(400, 847), *np.exp(rng.uniform(np.log(40), np.log(1200), (124, 2))).astype(int)]
    pairs = []
    for number, (width, height) in enumerate(sizes):
        image = sources[number % 8].resize((int(width), int(height)))
        pairs.append((mode(np.array(image)), transform(image)))
    # Before Pillow 13, the passes over an image that mainly loses rows have another order.
    comparable = [
        pair
        for pair, (width, height) in zip(pairs, sizes, strict=True)
        if int(PIL.__version__.partition(".")[0]) >= 13 or width > height
    ]
    apart = [float((ours != timms).float().mean()) for ours, timms in comparable]
    assert max(apart) < 0.03
    worst = [comparable[i] for i in np.argsort(apart)[-5:]]
    found, expected = (load_backbone().embed(list(images)) for images in zip(*worst, strict=True))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() >= 0.9999


def test_a_crop_wider_than_the_image_is_padded_as_timm_does(preprocessing, pixels):
    padded = replace(preprocessing, crop_pct=1.2)
    assert padded(pixels).shape == (3, 224, 224)
    assert float(levels_apart(padded, pixels).max()) <= 2


def test_an_edge_of_no_pixel_is_an_image_error(preprocessing):
    with pytest.raises(ImageError, match="too long and thin"):
        replace(preprocessing, crop_mode="border")(np.zeros((1, 4000, 3), np.uint8))


def test_the_recipe_says_which_implementation_resizes(preprocessing):
    assert preprocessing.recipe()["implementation"].startswith("torch")
    assert replace(preprocessing, interpolation="lanczos").recipe()["implementation"] == "timm"
    assert replace(preprocessing, crop_mode="border").recipe()["implementation"] == "timm"


def test_too_long_and_thin_is_refused(preprocessing):
    with pytest.raises(ImageError, match="1 x 300000 pixels"):
        preprocessing(np.zeros((300_000, 1, 3), np.uint8))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (250, 250)])
@pytest.mark.parametrize("input_size", [(3, 128, 128), (3, 128, 160)])
def test_the_box_is_what_the_network_sees(crop_mode, shape, input_size, preprocessing):
    """The image's colours are its coordinates, so that pixels show their original position."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 250 / width, rows * 250 / height, rows * 0], 2).astype(np.uint8)
    parameters = {"crop_mode": crop_mode, "input_size": input_size, "interpolation": "bilinear"}
    preprocessing = replace(preprocessing, **parameters, crop_pct=0.9, mean=(1, 1, 1))
    seen = preprocessing(pixels).numpy().astype(float)
    left, top, right, bottom = preprocessing.box(height, width)
    inside = np.flatnonzero(seen[2].min(0) < 20), np.flatnonzero(seen[2].min(1) < 20)  # no padding
    for axis, (begin, end, size) in enumerate([(left, right, width), (top, bottom, height)]):
        line = seen[axis].mean(0) if axis == 0 else seen[axis].mean(1)
        cells = len(line)
        for cell in (inside[axis][3], inside[axis][-4]):
            where = begin + (end - begin) * (cell + 0.5) / cells
            of_cell = seen[axis][:, cell] if axis == 0 else seen[axis][cell]
            of_cell = of_cell[inside[1 - axis]]
            assert np.median(of_cell) * size / 250 == pytest.approx(where, abs=0.03 * size)
