import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featuretl import load_backbone
from featuretl.backbones.views import (
    STRENGTHS,
    View,
    cached_view,
    check_views,
    draw,
    n_views,
    view_recipe,
    views_of,
)
from featuretl.exceptions import ParameterError


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


@pytest.mark.parametrize(("views", "n"), [(1, 1), (5, 5), ("ten-crop", 10), ("2x3", 7)])
def test_the_first_view_is_the_image_itself(pixels, views, n):
    found = views_of(views, pixels)
    assert len(found) == n_views(views) == n
    assert found[0] == View()


def test_flip_is_two_views_and_ten_crop_has_corners(pixels):
    assert check_views("a test", "flip") == 2
    assert views_of(2, pixels) == [View(), View(mirrored=True)]
    corners = views_of("ten-crop", pixels)[2:6]
    height, width = pixels.shape[:2]
    for view, (right, bottom) in zip(corners, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        left, top, *_ = view.box
        assert (left > 0, top > 0) == (right, bottom)
        sides = (view.box[2] - left) * width, (view.box[3] - top) * height
        assert sides == pytest.approx([0.875 * min(height, width)] * 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 500), st.integers(1, 500))
def test_tiles_are_squares_within_the_image_that_reach_its_corners(rows, columns, height, width):
    blank = np.zeros((height, width, 3), np.uint8)
    boxes = np.array([view.box for view in views_of(f"{rows}x{columns}", blank)[1:]])
    assert boxes.min() >= -1e-9
    assert boxes.max() <= 1 + 1e-9
    sides = (boxes[:, 2:] - boxes[:, :2]) * (width, height)
    np.testing.assert_allclose(sides, sides[0, 0])
    if rows > 1 and columns > 1:
        np.testing.assert_allclose([boxes.min(), boxes.max()], [0, 1], atol=1e-9)
    if rows * sides[0, 0] >= height and columns * sides[0, 0] >= width:  # no gaps
        tops, lefts = np.unique(boxes[:, 1].round(9)), np.unique(boxes[:, 0].round(9))
        assert np.diff(tops, append=tops[-1]).max() * height <= sides[0, 0] + 1e-3
        assert np.diff(lefts, append=lefts[-1]).max() * width <= sides[0, 0] + 1e-3


@pytest.mark.parametrize("views", [0, -1, 1.5, True, "", "3", "0x3", "axb", "99x99", 5000, None])
def test_other_views_are_refused(views):
    with pytest.raises(ParameterError, match="'views' parameter"):
        check_views("a test", views)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3000, 3)])
def test_hostile_shapes_have_tiles(shape, preprocessing):
    image = np.zeros(shape, np.uint8)
    for view in views_of("2x2", image)[1:]:
        assert view(image, preprocessing).shape == (3, 224, 224)
