import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featuretl import load_backbone
from featuretl.finetune.augment import STRENGTHS, View, cached_view, draw, view_recipe


@pytest.fixture(scope="module")
def preprocessing():
    return load_backbone().preprocessing


def test_the_plain_view_is_the_evaluation_transform(pixels, preprocessing):
    torch.testing.assert_close(View()(pixels, preprocessing), preprocessing(pixels), rtol=0, atol=0)


def test_the_mirrored_view_is_the_mirror_image(pixels, preprocessing):
    square = np.ascontiguousarray(pixels[:224, :224])
    mirrored = View(mirrored=True)(square, preprocessing)
    torch.testing.assert_close(mirrored, preprocessing(square).flip(2), rtol=0, atol=0.02)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(STRENGTHS)), st.integers(0, 10**6))
def test_crops_lie_in_the_image(name, seed):
    strength = STRENGTHS[name]
    view = draw(strength, np.random.default_rng(seed))
    left, top, right, bottom = view.box
    assert 0 <= left < right <= 1 + 1e-9
    assert 0 <= top < bottom <= 1 + 1e-9
    assert (right - left) * (bottom - top) <= strength.area[1] + 1e-9
    assert view == draw(strength, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (500, 3, 3)])
def test_tiny_and_thin_images_have_views(shape, preprocessing):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for seed in range(5):
        view = draw(STRENGTHS["strong"], np.random.default_rng(seed))
        x = view(image, preprocessing)
        assert x.shape == (3, 224, 224)
        assert torch.isfinite(x).all()


def test_colour_changes_pixels_only_where_asked(pixels, preprocessing):
    whole = (0.0, 0.0, 1.0, 1.0)
    plain = View(whole)(pixels, preprocessing)
    bright = View(whole, colour=(1.3, 1.0, 1.0))(pixels, preprocessing)
    assert bright.float().mean() > plain.float().mean()


def test_cached_views_depend_on_number_and_content(pixels):
    strong = STRENGTHS["strong"]
    assert cached_view(0, strong, pixels) == View()
    assert cached_view(1, strong, pixels) == View(mirrored=True)
    third = cached_view(3, strong, pixels)
    assert third == cached_view(3, strong, pixels.copy())
    assert third != cached_view(4, strong, pixels)
    assert third != cached_view(3, strong, pixels[::-1])


def test_strengths_share_the_views_that_are_the_same():
    light, strong = STRENGTHS["light"], STRENGTHS["strong"]
    assert [view_recipe(n, light) for n in (0, 1)] == [view_recipe(n, strong) for n in (0, 1)]
    assert view_recipe(2, strong)["area"] == [0.35, 1.0]
