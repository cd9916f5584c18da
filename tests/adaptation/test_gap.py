"""domain_gap: domains that are equal, differ in their class proportions, or differ beyond them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from featuretl.adaptation import domain_gap
from featuretl.adaptation.gap import (
    DomainGap,
    _auc,
    _estimated_proportions,
    _mmd,
    read_domains,
    sampled,
)
from featuretl.exceptions import InputError


def test_a_gap_without_classes_and_with_groups_in_both_domains(digits):
    X, _, T, _, _, _ = digits
    assert domain_gap(X, T).priors is None
    # The same 100 photographs in both domains; groups keep them on one side of each split.
    rows = np.arange(100)
    gap = domain_gap(X[:100], X[:100], groups=rows, groups_target=rows)
    assert not gap.is_clear
    assert gap.mmd < 0.01
    far = domain_gap(X[:100], X[:100] + 5, groups=rows, groups_target=rows)
    assert far.is_clear
    assert (far.auc, far.mmd_p) == (1.0, pytest.approx(1 / 201))
    assert far.a_distance == pytest.approx(2.0)
    with pytest.raises(InputError, match="cv=5 groups; got 2"):
        domain_gap(X, T, groups=[0] * 600, groups_target=[1] * 500, cv=5)


@pytest.mark.parametrize("n_groups", [None, 8])
def test_equal_domains_have_an_auc_of_a_half(n_groups):
    aucs, clear = [], 0
    for seed in range(25):
        rng, groups = np.random.default_rng(seed), [None, None]
        X, T = rng.normal(size=(2, 48, 32))
        if n_groups:
            groups = [np.arange(48) % n_groups, 100 + np.arange(48) % n_groups]
            X, T = (D + rng.normal(size=(n_groups, 32))[np.arange(48) % n_groups] for D in (X, T))
        gap = domain_gap(X, T, groups=groups[0], groups_target=groups[1], random_state=seed)
        aucs.append(gap.auc)
        clear += gap.is_clear
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / 5
    assert abs(np.mean(aucs) - 0.5) < 0.08
    assert clear <= 2


def test_the_auc_is_scikit_learns_and_its_derivative_that_of_weights():
    rng = np.random.default_rng(0)
    domain, weight = np.repeat([0, 1], [30, 20]), rng.uniform(0.5, 2, 50)
    logit = np.round(rng.normal(size=50) + domain, 1)  # with ties
    auc, derivative = _auc(domain, logit, weight)
    assert auc == pytest.approx(roc_auc_score(domain, logit, sample_weight=weight))
    for row in (0, 49):
        step = 1e-6 * weight * (np.arange(50) == row)
        moved = [_auc(domain, logit, weight + sign * step)[0] for sign in (1, -1)]
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(derivative[row], abs=1e-6)


@pytest.mark.parametrize("proportions", [[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
def test_class_proportions_are_those_of_the_mean(proportions):
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], 100)
    S = rng.normal(size=(300, 5)) + 4 * np.eye(3, 5)[codes]
    S[:, 4] = 7  # a constant feature
    means = np.stack([S[codes == c].mean(axis=0) for c in range(3)])
    target = (np.array(proportions) @ means)[None].repeat(2, axis=0)
    found = _estimated_proportions(target, S, codes)
    assert found == pytest.approx(proportions, abs=1e-3)
    assert found.sum() == pytest.approx(1)


def test_the_discrepancy_is_the_mean_of_the_kernel_over_pairs():
    rng = np.random.default_rng(0)
    S, T = rng.normal(size=(20, 3)), rng.normal(size=(15, 3)) + 1
    found, p = _mmd(S, T, np.random.RandomState(0))
    X = np.vstack([S, T])
    squared = np.square(X[:, None] - X).sum(axis=2)
    kernel = np.exp(-squared / np.median(squared[np.triu_indices(35, 1)]))
    inside = [
        part[~np.eye(len(part), dtype=bool)].mean() for part in (kernel[:20, :20], kernel[20:, 20:])
    ]
    assert found == pytest.approx(sum(inside) - 2 * kernel[:20, 20:].mean())
    assert p < 0.05
    assert _mmd(np.ones((3, 2)), np.ones((3, 2)), np.random.RandomState(0)) == (0, 1)


def test_the_same_seed_gives_the_same_gap_and_draws_rows_of_large_domains():
    rng = np.random.default_rng(0)
    X, T = rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) + 0.5
    y = np.arange(40) % 2
    gap = domain_gap(X, T, y, random_state=1)
    assert gap == domain_gap(X, T, y, random_state=1)
    assert gap.priors.keys() == {0, 1}
    assert sum(gap.priors.values()) == pytest.approx(1)
    assert sampled(5000, np.random.RandomState(0)).tolist() == list(range(5000))
    rows = sampled(6000, np.random.RandomState(0))
    assert len(rows) == 5000 == len(np.unique(rows))
    assert (np.diff(rows) > 0).all()


def test_the_findings_are_sentences():
    plain = DomainGap(0.9, 1.2, 0.1, 0.005, None, np.nan, 0.9, 0.02, 0.85)
    assert plain.is_clear
    assert "proportions" not in repr(plain)
    assert "AUC of 0.900" in repr(plain)
    assert repr(plain).endswith("The domains look different.")
    matched = DomainGap(0.9, 1.2, 0.1, 0.005, {"a": 1.0}, 0.25, 0.52, 0.02, 0.48)
    assert not matched.is_clear
    assert "differ by about 0.25" in str(matched)
    assert "0.520 +- 0.020" in str(matched)
    assert str(matched).endswith("Apart from class proportions, the domains do not clearly differ.")


@pytest.mark.parametrize(
    ("X", "T", "message"),
    [
        (np.ones((1, 2)), np.ones((2, 2)), r"got \(1, 2\) and \(2, 2\)"),
        (np.ones((2, 2)), np.ones((2, 3)), r"got \(2, 2\) and \(2, 3\)"),
        (np.ones(2), np.ones((2, 2)), r"^X must have the shape .*got \(2,\)"),
        (np.ones((2, 2)), np.ones((0, 2)), r"^X_target .*got \(0, 2\)"),
        ([[1, np.inf], [0, 0]], np.ones((2, 2)), "1 with infinity"),
    ],
)
def test_what_is_no_pair_of_domains_is_refused(X, T, message):
    with pytest.raises(InputError, match=message):
        read_domains(X, T)
