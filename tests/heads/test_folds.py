import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, RepeatedKFold

from featuretl.exceptions import FeatureTLWarning, InputError
from featuretl.heads._folds import fold_of_rows
from featuretl.heads._targets import Targets


def targets(codes):
    return Targets(np.arange(max(codes) + 1), np.asarray(codes))


def test_folds_are_stratified():
    codes = np.repeat([0, 1], [40, 10])
    fold, n_folds = fold_of_rows("X", targets(codes), None, 5, 0)
    assert n_folds == 5
    assert all(np.bincount(codes[fold == f]).tolist() == [8, 2] for f in range(5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_groups_stay_together(seed):
    rng = np.random.default_rng(seed)
    codes = np.r_[[0, 1] * 10, rng.integers(0, 2, 40)]
    groups = rng.integers(0, 12, 60)
    fold, _ = fold_of_rows("X", targets(codes), groups, 3, 0)
    assert all(len(set(fold[groups == g])) <= 1 for g in range(12))
    multilabel = Targets(np.arange(2), np.c_[codes, codes])
    fold, _ = fold_of_rows("X", multilabel, groups, 3, 0)
    assert all(len(set(fold[groups == g])) <= 1 for g in range(12))


def test_the_only_row_of_a_class_is_never_held_out():
    with pytest.warns(FeatureTLWarning, match="never holds out the only row of 1 classes"):
        fold, n_folds = fold_of_rows("X", targets([0, 0, 0, 1, 1, 1, 2]), None, 3, 0)
    assert n_folds == 3
    assert fold.tolist().count(-1) == 1
    assert fold[-1] == -1


@pytest.mark.parametrize(
    ("codes", "groups", "message"),
    [
        ([0] * 9 + [1] * 3, None, "uses 3 folds instead of 5, because class 1 has 3 rows"),
        ([0, 1] * 10, [0, 0, 1, 1] * 5, "uses 2 folds instead of 5, because groups has 2"),
    ],
)
def test_fewer_folds_are_said_aloud(codes, groups, message):
    with pytest.warns(FeatureTLWarning, match=message):
        fold_of_rows("X", targets(codes), groups, 5, 0)


@pytest.mark.parametrize(("codes", "groups"), [([0, 1, 2], None), ([0, 1, 0, 1], [7, 7, 7, 7])])
def test_no_folds_at_all_is_an_error(codes, groups):
    with pytest.raises(InputError, match="needs at least 2 folds"):
        fold_of_rows("X", targets(codes), groups, 5, 0)


def test_splitters_are_used_as_they_are():
    codes = [0, 1] * 10
    fold, n_folds = fold_of_rows("X", targets(codes), None, KFold(4), 0)
    assert n_folds == 4
    assert fold.tolist() == np.repeat(range(4), 5).tolist()
    with pytest.raises(InputError, match="hold out a row once at most"):
        fold_of_rows("X", targets(codes), None, RepeatedKFold(n_splits=2), 0)
    with pytest.raises(InputError, match="train on all other rows"):
        fold_of_rows("X", targets(codes), None, [([0, 1], [2, 3])], 0)
