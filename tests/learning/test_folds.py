import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, RepeatedKFold

from featuretl._learning.folds import fold_of_rows, hold_out
from featuretl._learning.targets import Targets
from featuretl.exceptions import FeatureTLWarning, InputError


def targets(codes):
    return Targets(np.arange(max(codes) + 1), np.asarray(codes))


def test_folds_are_stratified():
    codes = np.repeat([0, 1], [40, 10])
    fold = fold_of_rows("X", targets(codes), None, 5, 0)
    assert fold.max() + 1 == 5
    assert all(np.bincount(codes[fold == f]).tolist() == [8, 2] for f in range(5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_groups_stay_together(seed):
    rng = np.random.default_rng(seed)
    codes = np.r_[[0, 1] * 10, rng.integers(0, 2, 40)]
    groups = rng.integers(0, 12, 60)
    fold = fold_of_rows("X", targets(codes), groups, 3, 0)
    assert all(len(set(fold[groups == g])) <= 1 for g in range(12))
    multilabel = Targets(np.arange(2), np.c_[codes, codes])
    fold = fold_of_rows("X", multilabel, groups, 3, 0)
    assert all(len(set(fold[groups == g])) <= 1 for g in range(12))


def test_the_only_row_of_a_class_is_never_held_out():
    with pytest.warns(FeatureTLWarning, match="only row of 1 classes"):
        fold = fold_of_rows("X", targets([0, 0, 0, 1, 1, 1, 2]), None, 3, 0)
    assert fold.max() + 1 == 3
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
    fold = fold_of_rows("X", targets(codes), None, KFold(4), 0)
    assert fold.max() + 1 == 4
    assert fold.tolist() == np.repeat(range(4), 5).tolist()
    with pytest.raises(InputError, match="split 2 does not"):
        fold_of_rows("X", targets(codes), None, RepeatedKFold(n_splits=2), 0)
    with pytest.raises(InputError, match="split 0 does not"):
        fold_of_rows("X", targets(codes), None, [([0, 1], [2, 3])], 0)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 9), st.booleans(), st.booleans())
def test_no_fold_is_empty_and_every_training_part_has_every_class(seed, cv, n_groups, few, labels):
    rng = np.random.default_rng(seed)
    codes = rng.choice(4, 40, p=[0.85, 0.05, 0.05, 0.05] if few else [0.25] * 4)
    groups, X = rng.integers(0, n_groups, 40), rng.normal(size=(40, 2))
    X[20:26] = X[:6]
    weight = np.where(rng.uniform(size=40) < 0.2, 0.0, 1.0)
    of = Targets(np.arange(4), np.eye(4, dtype=int)[codes] if labels else codes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fold = fold_of_rows("X", of, groups, cv, seed, X=X, weight=weight)
        except InputError as error:
            assert "groups" in str(error)
            return
    assert len(caught) <= 1
    assert (fold[weight == 0] == -1).all()
    counted = weight > 0
    assert sorted(set(fold[counted]) - {-1}) == list(range(fold.max() + 1))
    assert 2 <= fold.max() + 1 <= cv
    for number in range(fold.max() + 1):
        assert set(codes[counted & (fold != number)]) == set(codes[counted])
    same = groups[:, None] == groups
    if not any("equal rows of X" in str(w.message) for w in caught):
        same |= (X[:, None] == X).all(axis=2)
    same &= counted[:, None] & counted
    assert (fold[:, None] == fold)[same].all()


def test_a_class_in_a_single_group_is_trained_on_only_with_one_warning():
    codes, groups = np.arange(120) % 4, np.arange(120) // 4 % 10
    groups[codes == 3] = 99
    with pytest.warns(FeatureTLWarning, match=r"1 classes .* single group \(such as 3\)") as caught:
        fold = fold_of_rows("X", targets(codes), groups, 5, 0)
    assert len(caught) == 1
    assert fold.max() + 1 == 5
    assert ((fold == -1) == (codes == 3)).all()
    # Its group is never held out either, nor are the classes that only this group holds.
    groups[:4] = 99
    with pytest.warns(FeatureTLWarning):
        fold = fold_of_rows("X", targets(codes), groups, 5, 0)
    assert ((fold == -1) == (groups == 99)).all()


@pytest.mark.parametrize("groups", [np.arange(40) % 4, np.repeat([0, 1], 20)])
def test_without_two_folds_the_groups_are_blamed(groups):
    codes = np.arange(40) % 4 if len(set(groups)) == 4 else np.repeat([0, 1], 20)
    with pytest.raises(InputError, match=r"each of the \d groups"):
        fold_of_rows("X", targets(codes), groups, 5, 0)


def test_a_class_in_two_of_twelve_groups_is_in_two_folds():
    codes = (np.arange(120) % 12 < 2).astype(int)
    for seed in range(6):
        fold = fold_of_rows("X", targets(codes), np.arange(120) % 12, 5, seed)
        assert fold.max() + 1 == 5
        assert sorted(np.bincount(fold[codes == 1], minlength=5)) == [0, 0, 0, 10, 10]


def test_equal_rows_share_a_fold_and_of_too_few_nothing_is_asked():
    X = np.random.default_rng(0).normal(size=(20, 3))
    codes = np.random.default_rng(1).integers(0, 2, 40)
    fold = fold_of_rows("X", targets(codes), None, 5, 0, X=np.vstack([X, X]))
    assert (fold[:20] == fold[20:]).all()
    assert np.bincount(fold).tolist() == [8] * 5
    with pytest.warns(FeatureTLWarning, match="equal rows of X"):
        fold = fold_of_rows("X", targets(codes), None, 2, 0, X=np.zeros((40, 3)))
    assert fold.max() + 1 == 2


def test_a_label_of_one_row_is_always_trained_on():
    labels = np.zeros((30, 3), int)
    labels[::2, 0], labels[::3, 1], labels[7, 2] = 1, 1, 1
    fold = fold_of_rows("X", Targets(np.arange(3), labels), None, 5, 0)
    assert np.flatnonzero(fold == -1).tolist() == [7]


def test_splitters_leave_nothing_untrained():
    codes = np.repeat([0, 1, 2], 10)
    with pytest.warns(FeatureTLWarning, match="test part of one split") as caught:
        fold = fold_of_rows(
            "X", targets(codes), None, PredefinedSplit(np.r_[[0, 1] * 10, [0] * 10]), 0
        )
    assert (len(caught), fold.max() + 1) == (1, 2)
    assert ((fold == -1) == (codes == 2)).all()
    with pytest.raises(InputError, match=r"only class 0 .* in split 1"):
        fold_of_rows("X", targets([0, 0, 1, 1]), None, PredefinedSplit([0, 1, 1, 1]), 0)
    # A split that holds out no rows, or only rows of zero weight, is no fold.
    splits = [([*range(2, 30)], [0, 1]), (list(range(30)), []), ([*range(28)], [28, 29])]
    fold = fold_of_rows("X", targets(np.arange(30) % 3), None, splits, 0)
    assert fold.max() + 1 == 2
    weight = np.r_[np.zeros(2), np.ones(28)]
    fold = fold_of_rows("X", targets(np.arange(30) % 3), None, splits, 0, weight=weight)
    assert fold.max() + 1 == 1


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (iter([]), "must hold out rows"),
        ([([0, 1, 2], [99])], "cannot split 4 rows"),
        ([1, 2], "cannot split 4 rows"),
        (GroupKFold(2), "cannot split 4 rows"),
        ([([], [0, 1, 2, 3])], "leaves nothing to train on"),
    ],
)
def test_what_is_no_split_is_one_sentence(cv, message):
    with pytest.raises(InputError, match=message):
        fold_of_rows("X", targets([0, 1, 0, 1]), None, cv, 0)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_held_out_is_of_whole_units_and_every_class_is_trained_on(seed):
    strata, units = np.arange(60) % 3, np.arange(60) // 3 % 8
    units[strata == 2] = 9
    train, held_out = hold_out(60, strata, units, 0.2, seed)
    assert sorted([*train, *held_out]) == list(range(60))
    assert not set(units[train]) & set(units[held_out])
    assert set(strata[train]) == {0, 1, 2}
    assert set(strata[held_out]) == {0, 1}
    train, held_out = hold_out(60, strata, None, 0.2, seed)
    assert np.bincount(strata[held_out]).tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match="can be held out"):
        hold_out(60, strata, strata, 0.2, seed)
