"""Overlays: colours cover the heat, on the part of the image that the network sees."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from featuretl.exceptions import ParameterError
from featuretl.explanation import Explanation
from featuretl.explanation.explanation import save_overlays

mpl.use("Agg")

GREY = np.full((40, 80, 3), 100, np.uint8)
# The network sees the middle half of the image: its left supports the target, its right does not.
HEAT = np.float32([[4, -2], [4, -2]])


def explanation(image=GREY, box=(20.0, 0.0, 60.0, 40.0), heat=HEAT, target="ants"):
    return Explanation(image, target, 1.5, heat, box, "class activation map", 0.5)


def test_colours_lie_where_the_heat_is():
    drawn = np.asarray(explanation().overlay()).astype(int)
    assert drawn.shape == GREY.shape
    assert (drawn[:, :20] == 50).all() and (drawn[:, 60:] == 50).all()  # not seen
    red, _, blue = drawn[20, 25]
    assert red > 150 and blue < 60
    red_against, _, blue_against = drawn[20, 55]
    assert blue_against > 130 and red_against < 100
    assert blue_against - 100 < red - 100  # half as strong


def test_alpha_0_shows_no_evidence():
    drawn = np.asarray(explanation().overlay(alpha=0))
    assert (drawn[:, 20:60] == 100).all()
    with pytest.raises(ParameterError, match=r"a number in \[0, 1\]; got 2"):
        explanation().overlay(2)


@pytest.mark.parametrize(
    "box", [(-20.0, -20.0, 100.0, 60.0), (30.2, 10.4, 30.6, 10.9), (0, 0, 1e9, 1e9)]
)
def test_boxes_of_any_kind_are_drawn(box):
    """A box larger than a padded image, and one smaller than a pixel."""
    assert explanation(box=box).overlay().size == (80, 40)


def test_no_evidence_at_all():
    drawn = np.asarray(explanation(heat=np.zeros((2, 2), np.float32)).overlay())
    assert (drawn[:, 20:60] == 100).all()


def test_plot():
    ax = explanation(target="$ants^").plot()
    assert ax.get_title() == "$ants^: 1.50"
    ax.figure.canvas.draw()
    assert ax.images[0].get_array().shape == (40, 80, 3)
    assert explanation().plot(ax) is ax


def test_side_by_side(tmp_path):
    long = np.full((10, 500, 3), 100, np.uint8)
    (path,) = save_overlays([explanation(), explanation(long)], tmp_path / "o.png", height=100)
    with Image.open(path) as picture:
        assert picture.size == (200 + 6 + 400, 122)
        caption = np.asarray(picture)[102:]
    assert (caption.min(2) < 100).any()


def test_a_folder_gets_a_picture_for_each(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(GREY).save(tmp_path / folder / "x.png")
    images = [tmp_path / "a" / "x.png", str(tmp_path / "b" / "x.png"), GREY]
    files = save_overlays([explanation(image) for image in images], tmp_path / "a")
    names = ["x-explained.png", "x-2-explained.png", "image-2-explained.png"]
    assert [file.name for file in files] == names
    assert Image.open(files[1]).size == (80, 40)
    assert np.asarray(Image.open(images[0])).tolist() == GREY.tolist()


@pytest.mark.parametrize(
    "name, images, message",
    [
        ("o.gif", [GREY], "must be a folder, or end in .png, .jpg, .jpeg"),
        ("none/o.png", [GREY], "does not exist; create it first"),
        ("o.png", [GREY] * 13, "holds 12 overlays; got 13"),
    ],
)
def test_outputs_that_cannot_be(name, images, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        save_overlays([explanation(image) for image in images], tmp_path / name)


def test_an_image_is_not_written_over(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.png")
    with pytest.raises(ParameterError, match="is one of the images"):
        save_overlays([explanation(tmp_path / "x.png")], tmp_path / "x.png")
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="cannot be written"):
        save_overlays([explanation()], tmp_path / "file")
