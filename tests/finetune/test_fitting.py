"""Fitting: the rows that the inner split holds out."""

import numpy as np
import pytest

from featuretl.exceptions import InputError

pytestmark = pytest.mark.filterwarnings("ignore:LinearProbeClassifier uses")


def test_groups_stay_on_one_side_of_the_inner_split(quick, photos, labels):
    groups = np.repeat(np.arange(12), 2)
    fitting = quick(learning_rate="auto")._begin(photos, labels, None, groups, None)
    train, held_out = fitting._inner_split()
    assert not set(groups[train]) & set(groups[held_out])
    assert len(train) + len(held_out) == 24
    assert {labels[i] for i in train} == set(labels)


def test_too_few_images_to_hold_out(quick, photos, labels):
    with pytest.raises(InputError, match=r"(cannot hold out|needs at least 2 folds)"):
        quick(learning_rate="auto").fit([photos[0], photos[-1]], [labels[0], labels[-1]])


def test_copies_of_an_image_are_judged_with_it(quick, photos, labels):
    fitting = quick(learning_rate="auto")._begin(
        [*photos, *photos], [*labels, *labels], None, None, None
    )
    train, held_out = fitting._inner_split()
    assert set(train % 24).isdisjoint(held_out % 24)
    assert 8 <= len(held_out) <= 16
