"""Several pictures per item: embedded in batches, and pooled over each item's own pictures."""

from __future__ import annotations

import numpy as np

from featuretl.media.pictures import Pictures


class Backbone:
    """A backbone whose embedding of the number n is (n, 1)."""

    def __init__(self):
        output = {"pooling": "avg", "n_features": 2}
        self.recipe = {"backbone": {"name": "fake"}, "output": output}
        self.sizes = []

    def embed(self, pictures):
        self.sizes.append(len(pictures))
        return np.array([[picture, 1] for picture in pictures], np.float32)


class Strips(Pictures):
    def __init__(self, pooling):
        self.pooling, self.fake = pooling, Backbone()

    @property
    def _backbone(self):
        return self.fake


ITEMS = [[1, 3], [5], list(range(70)), [2, 2, 8]]


def test_each_item_is_the_mean_of_its_own_pictures():
    medium = Strips("mean")
    rows = medium.forward(ITEMS)
    np.testing.assert_allclose(rows, [[2, 1], [5, 1], [34.5, 1], [4, 1]])
    assert rows.dtype == np.float32
    assert medium.fake.sizes == [32, 32, 12]  # 76 pictures, whatever items they belong to


def test_the_standard_deviation_stands_beside_the_mean():
    rows = Strips("mean+std").forward(ITEMS)
    assert rows.shape == (4, 4)
    np.testing.assert_array_equal(rows[:, :2], Strips("mean").forward(ITEMS))
    np.testing.assert_allclose(rows[:, 2], [np.std(item) for item in ITEMS], rtol=1e-6)
    assert rows[1, 2] == 0  # a single picture
    assert (rows[:, 3] == 0).all()


def test_an_items_row_does_not_depend_on_the_others():
    medium = Strips("mean+std")
    alone = np.concatenate([medium.forward([item]) for item in ITEMS])
    np.testing.assert_array_equal(alone, medium.forward(ITEMS))


def test_the_recipe_is_the_backbones_with_the_pooling():
    medium = Strips("mean")
    recipe = medium._recipe("frames", frames=8)
    assert recipe["output"] == {"pooling": "avg, mean of frames", "n_features": 2}
    assert (recipe["backbone"], recipe["frames"]) == ({"name": "fake"}, 8)
    assert medium.fake.recipe["output"]["pooling"] == "avg"  # not changed
