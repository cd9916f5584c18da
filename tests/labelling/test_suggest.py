"""suggest_labels returns distinct rows that are more useful than random ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from featuretl import LinearProbeClassifier, NearestMeanClassifier, suggest_labels
from featuretl.exceptions import InputError, ParameterError
from featuretl.labelling import suggest as suggest_module
from featuretl.labelling.suggest import STRATEGIES


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_labelled", [0, 60])
def test_rows_are_new_different_and_the_same_for_a_seed(digits, strategy, n_labelled):
    X, y = digits
    if strategy == "uncertainty" and not n_labelled:
        pytest.skip("needs labels")
    labelled = np.random.default_rng(0).permutation(len(X))[:n_labelled]
    options = {"labelled": labelled, "y": y[labelled], "random_state": 3}
    rows = suggest_labels(X, 25, strategy, **options)
    assert len(set(rows.tolist())) == 25
    assert not set(rows) & set(labelled)
    np.testing.assert_array_equal(rows, suggest_labels(X, 25, strategy, **options))
    np.testing.assert_array_equal(rows, suggest_labels(X.tolist(), 25, strategy, **options))


@pytest.mark.parametrize("strategy", ["typiclust", "coreset", "uncertainty", "random"])
def test_all_that_is_left_is_suggested_at_most(digits, strategy):
    X, y = digits[0][:40], digits[1][:40]
    labelled = np.arange(10)
    rows = suggest_labels(X, 100, strategy, labelled=labelled, y=y[:10], random_state=0)
    assert sorted(rows) == list(range(10, 40))
    everything = np.arange(40)
    assert suggest_labels(X, 5, strategy, labelled=everything, y=y).shape == (0,)


def test_typical_images_teach_more_than_random_ones(digits):
    X, y = digits
    scores = {"typiclust": [], "random": []}
    for seed in range(5):
        for strategy, found in scores.items():
            rows = suggest_labels(X, 20, strategy, random_state=seed)
            found.append(NearestMeanClassifier().fit(X[rows], y[rows]).score(X, y))
    assert np.mean(scores["typiclust"]) > np.mean(scores["random"]) + 0.05


def test_uncertain_images_teach_more_than_random_ones(digits):
    X, y = digits
    scores = {"uncertainty": [], "random": []}
    for seed in range(5):
        start = np.random.default_rng(seed).permutation(len(X))[:60]
        for strategy, found in scores.items():
            rows = start
            for _ in range(3):
                more = suggest_labels(X, 40, strategy, labelled=rows, y=y[rows], random_state=seed)
                rows = np.concatenate([rows, more])
            found.append(LinearProbeClassifier().fit(X[rows], y[rows]).score(X, y))
    assert np.mean(scores["uncertainty"]) > np.mean(scores["random"]) + 0.01


def test_coreset_reaches_every_corner(digits):
    X, _ = digits
    covered = []
    for strategy in ("coreset", "random"):
        rows = suggest_labels(X, 50, strategy, random_state=0)
        Z = X - X.mean(axis=0)
        Z /= np.linalg.norm(Z, axis=1, keepdims=True)
        covered.append(np.square(Z[:, None] - Z[rows]).sum(axis=2).min(axis=1).max())
    assert covered[0] < covered[1]


def test_auto_begins_with_typical_images_and_goes_on_with_uncertain_ones(digits):
    X, y = digits
    few = np.flatnonzero(np.arange(len(y)) < 30)
    many = np.arange(100)
    for rows, strategy in ((few, "typiclust"), (many, "uncertainty")):
        options = {"labelled": rows, "y": y[rows], "random_state": 0}
        auto = suggest_labels(X, 5, **options)
        np.testing.assert_array_equal(auto, suggest_labels(X, 5, strategy, **options))


def test_duplicates_and_many_rows_are_no_trouble(digits, monkeypatch):
    X, _ = digits
    same = np.repeat(X[:3], 20, axis=0)
    for strategy in ("typiclust", "coreset"):
        assert len(set(suggest_labels(same, 30, strategy, random_state=0))) == 30
    monkeypatch.setattr(suggest_module, "_MAX_KMEANS_ROWS", 100)
    assert len(set(suggest_labels(X, 30, random_state=0))) == 30


def test_mistakes_are_one_sentence(digits):
    X, _ = digits
    with pytest.raises(ParameterError, match="'strategy'"):
        suggest_labels(X, 5, "badge")
    with pytest.raises(ParameterError, match="'n'"):
        suggest_labels(X, 0)
    for labelled in ([1, 1], [len(X)], [-1]):
        with pytest.raises(ParameterError, match="'labelled'"):
            suggest_labels(X, 5, labelled=labelled)
    with pytest.raises(InputError, match="one entry per labelled row; got 3 for 2"):
        suggest_labels(X, 5, labelled=[1, 2], y=[0, 1, 2])
    with pytest.raises(InputError, match="needs labels of two classes"):
        suggest_labels(X, 5, "uncertainty", labelled=[1, 2], y=[4, 4])
    bad = X.copy()
    bad[0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 1797 rows with NaN"):
        suggest_labels(bad, 5)
